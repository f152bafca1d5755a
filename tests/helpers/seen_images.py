"""A callback that a test puts into a run by its configuration."""

import json
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class SeenImages(pl.Callback):
    """Writes the images of every batch, a line each, into a file of the rank in the folder `SEEN_IMAGES`."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        folder = Path(os.environ["SEEN_IMAGES"])
        folder.mkdir(exist_ok=True)
        with (folder / f"{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps([target["image_id"] for target in batch[1]]) + "\n")
