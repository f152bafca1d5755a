"""What a sweep hears of its jobs while they run."""

import json
import math
from pathlib import Path

import pytorch_lightning as pl


class ObjectiveReport(pl.Callback):
    """Writes one score down after every validation, to `objective.jsonl` in the run directory.

    Args:
        objective: name of the score.
    """

    def __init__(self, objective: str) -> None:
        self.objective = objective

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a line with the epoch and the score, if there is a finite one."""
        score = trainer.callback_metrics.get(self.objective)
        if trainer.sanity_checking or not trainer.is_global_zero or score is None:
            return
        value = float(score)
        if math.isfinite(value):
            line = json.dumps({"epoch": trainer.current_epoch, "value": value})
            with (Path(trainer.default_root_dir) / "objective.jsonl").open("a") as file:
                file.write(line + "\n")
