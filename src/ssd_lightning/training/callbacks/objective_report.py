"""What a job of a sweep reports while it runs."""

import json
import math
from pathlib import Path

import pytorch_lightning as pl

from ssd_lightning.run_files import OBJECTIVES


class ObjectiveReport(pl.Callback):
    """Appends the score `objective` to `objective.jsonl` in the run directory after every validation."""

    def __init__(self, objective: str) -> None:
        self.objective = objective

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Append a line with the epoch and the score, if the score is finite."""
        score = trainer.callback_metrics.get(self.objective)
        if trainer.sanity_checking or not trainer.is_global_zero or score is None:
            return
        value = float(score)
        if math.isfinite(value):
            line = json.dumps({"epoch": trainer.current_epoch, "value": value})
            with (Path(trainer.default_root_dir) / OBJECTIVES).open("a") as file:
                file.write(line + "\n")
