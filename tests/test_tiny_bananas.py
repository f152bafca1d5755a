"""TinySSD as d2l.ai trains it (section 14.7): one object an image is found once, tightly, with confidence."""

from pathlib import Path

import pytest
import torch
from torchvision.ops import box_iou

from helpers.bananas import write_bananas
from helpers.commands import run_command
from ssd_lightning.inference.detector import Detector


@pytest.mark.slow
def test_one_tight_box_a_image_above_nine_tenths(tmp_path: Path) -> None:
    """At a quarter of the book's 256 x 256 pixels, so that a CPU trains in a minute."""
    boxes = write_bananas(tmp_path / "bananas", num_train=240, num_val=20)
    run_command(tmp_path, "train", "experiment=tiny_bananas", "data.root=bananas", "hydra.run.dir=run",
        "image_size=[128,128]", "trainer.max_epochs=12", "data.num_workers=0", "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false", "report=false", "callbacks.dashboard=null",
    )  # fmt: skip
    ious = []
    for found, box in zip(Detector.load(tmp_path / "run")(list(boxes)), boxes.values(), strict=True):
        sure = torch.from_numpy(found.boxes_xyxy_px[found.scores > 0.9])
        if len(sure) == 1:
            ious.append(box_iou(sure, torch.tensor([box])).item())
    assert len(ious) >= 18
    assert sum(ious) / len(ious) > 0.6, ious
