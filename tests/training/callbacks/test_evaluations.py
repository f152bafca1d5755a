"""The record of a real run is that of the checkpoint it keeps."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.interrupted import data, fit
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.inference.checkpoints import find_checkpoint
from ssd_lightning.inference.detector import Detector
from ssd_lightning.metrics import VOCMeanAveragePrecision
from ssd_lightning.train import best_checkpoint
from ssd_lightning.training import SSDModule
from ssd_lightning.training.callbacks.evaluations import Evaluations


def train(run: Path, **settings: Any) -> Any:
    return fit(run, callbacks=(Evaluations(),), default_root_dir=run, **settings)


def evaluation_of(checkpoint: Path) -> EvaluationRecord:
    """Evaluate a kept checkpoint again."""
    detector = Detector.load(checkpoint)
    module = data(checkpoint.parents[2])
    metric = VOCMeanAveragePrecision(2)
    for images, targets in module.evaluation_loader("val"):
        metric.update(detector.detect(images), targets)
    return EvaluationRecord.of(metric, module.dataset("val"), split="val", class_names=detector.class_names)


NAN = float("nan")
SHORT = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1}


@pytest.mark.parametrize(
    ("scores", "epoch"),
    [
        ((0.0, 0.0, -0.5), 2),  # equal scores say nothing: the longer training is the better guess
        ((NAN, NAN, NAN), None),
        ((NAN, 0.5, NAN), 2),
    ],
)
def test_the_best_checkpoint_is_of_the_last_validation_with_the_highest_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: tuple[float, ...], epoch: int | None
) -> None:
    """The scores of the small run rise and fall as they like; these are given."""
    given, log = iter(scores), SSDModule.log

    def log_given(self: SSDModule, name: str, value: Any, **settings: Any) -> None:
        log(self, name, torch.tensor(next(given)) if name == "val/map_11point" else value, **settings)

    monkeypatch.setattr(SSDModule, "log", log_given)
    trainer = train(tmp_path / "run", limit_train_batches=1)
    assert next(given, None) is None
    found = find_checkpoint(tmp_path / "run")
    assert best_checkpoint(trainer) == str(found)
    assert found.name == ("last.ckpt" if epoch is None else "best.ckpt")
    assert torch.load(found, weights_only=True)["global_step"] == (epoch or 3)
    record, again = EvaluationRecord.load(tmp_path / "run" / "evaluations" / "val.npz"), evaluation_of(found)
    for name in ("split", "class_names", "image_ids", "image_paths"):
        assert getattr(record, name) == getattr(again, name)
    columns, expected = ([one.sizes_px, *one.detections, *one.objects] for one in (record, again))
    torch.testing.assert_close(columns, expected, rtol=0, atol=1e-6)


def test_a_full_disk_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(record: EvaluationRecord, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EvaluationRecord, "save", fail)
    train(tmp_path / "run", **SHORT)
    assert "val.npz is not written" in caplog.text
