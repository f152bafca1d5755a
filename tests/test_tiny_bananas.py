"""TinySSD as d2l.ai trains it (section 14.7): one object an image is found once, tightly, with confidence."""

from pathlib import Path

import pytest
import torch
from torchvision.ops import box_iou

from helpers.bananas import write_bananas
from helpers.commands import run_command
from helpers.datasets import open_csv
from ssd_lightning.data.resize import Resize
from ssd_lightning.inference.detector import Detector

SIZE = 128
"""A quarter of the book's 256 x 256 pixels, so that a CPU trains in minutes."""


@pytest.mark.slow
def test_one_tight_box_a_image_above_nine_tenths(tmp_path: Path) -> None:
    write_bananas(tmp_path / "bananas", num_train=400, num_val=40)
    run_command(tmp_path, "train", "experiment=tiny_bananas", "data.root=bananas", "hydra.run.dir=run",
        f"image_size=[{SIZE},{SIZE}]", "trainer.max_epochs=12", "data.num_workers=0", "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false",
    )  # fmt: skip
    detector = Detector.load(tmp_path / "run")
    dataset = open_csv(
        splits=[{"root": str(tmp_path / "bananas"), "split": "bananas_val"}],
        class_descriptions={"0": "banana"},
        class_names=["banana"],
        transform=Resize(image_size=(SIZE, SIZE)),
    )
    ious, numbers = [], []
    for image, target in dataset:
        found = detector.detect(image[None])[0]
        sure = found["boxes"][found["scores"] > 0.9]
        numbers.append(len(sure))
        if len(sure):
            ious.append(box_iou(sure[:1], target["boxes"]).item())
    assert numbers.count(1) >= 36, numbers
    assert torch.tensor(ious).mean() > 0.6
