"""Every network trains, and what it saves is read again: in its own process's place, small, on toy images."""

from pathlib import Path

import pytest
import torch

from helpers.commands import run_command
from ssd_lightning.inference.detector import Detector
from ssd_lightning.models.weights import load_pretrained
from test_choices import BACKBONES, MODELS

SMALL = [
    "data=toy", "data.num_train=30", "data.num_val=1", "data.num_test=1", "data.side_px=96", "data.num_workers=0",
    "data.batch_size=2", "trainer.limit_train_batches=1", "trainer.max_epochs=1", "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false", "logger=none", "hydra.run.dir=run",
    "optimizer.lr=0.0001", "report=false", "~callbacks.dashboard",
]  # fmt: skip
WORDS = [f"backbone={name}" for name in BACKBONES if name != "tiny"] + [f"model={name}" for name in MODELS]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", WORDS)
def test_network_trains_an_epoch_and_its_weights_load_again(overrides: str, tmp_path: Path) -> None:
    extra = ["backbone.name=resnet18"] if overrides == "backbone=timm" else []
    extra += [] if overrides == "model=tiny_ssd" else ["backbone.weights=null"]
    run_command(tmp_path, "train", overrides, *extra, *SMALL)
    trained = Detector.load(tmp_path / "run")
    assert all(tensor.isfinite().all() for tensor in trained.net.state_dict().values())

    run_command(tmp_path, "export", "checkpoint=run", "format=safetensors", "output=weights.safetensors", "images=1")
    again = Detector.load(tmp_path / "run").net
    for parameter in again.parameters():
        torch.nn.init.zeros_(parameter)
    loaded = load_pretrained(again, tmp_path / "weights.safetensors")
    assert not loaded.reinitialised
    images = torch.randint(0, 256, (1, 3, *again.image_size), dtype=torch.uint8)
    with torch.no_grad():
        for ours, theirs in zip(again.eval()(images), trained.net(images), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_fine_tuning_starts_from_a_run_with_other_classes(tmp_path: Path) -> None:
    overrides = [*SMALL, "model=tiny_ssd"]
    run_command(tmp_path, "train", *overrides)
    run_command(tmp_path, "train", *overrides, "init_from=run", "data.class_names=[disk,star]",
        "data.on_error=skip", "hydra.run.dir=second",
    )  # fmt: skip
    assert Detector.load(tmp_path / "second").class_names == ("disk", "star")
