"""The record of a real run is that of the checkpoint it keeps."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.interrupted import data, fit
from helpers.targets import make_target
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.pr_curves import mean_ap, pr_curves
from ssd_lightning.inference.checkpoints import find_checkpoint
from ssd_lightning.inference.detector import Detector
from ssd_lightning.metrics import VOCMeanAveragePrecision
from ssd_lightning.metrics.detection_state import image_key
from ssd_lightning.train import best_checkpoint
from ssd_lightning.training.callbacks.evaluations import Evaluations, is_best
from ssd_lightning.types import Detections, Target


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


def assert_close(one: EvaluationRecord, two: EvaluationRecord) -> None:
    for name in ("split", "class_names", "image_ids", "image_paths"):
        assert getattr(one, name) == getattr(two, name)
    for column, other in zip(
        (one.sizes_px, *one.detections, *one.objects), (two.sizes_px, *two.detections, *two.objects), strict=True
    ):
        torch.testing.assert_close(column, other, rtol=0, atol=1e-6)


def test_the_record_is_of_the_best_checkpoint(tmp_path: Path) -> None:
    scores: list[tuple[bool, float]] = []

    class Watch(Evaluations):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            scores.append((is_best(trainer), float(trainer.callback_metrics["val/map_area"])))
            super().on_validation_end(trainer, pl_module)

    fit(tmp_path / "run", callbacks=(Watch(),), default_root_dir=tmp_path / "run", val_check_interval=2, max_epochs=2)
    record = EvaluationRecord.load(tmp_path / "run" / "evaluations" / "val.npz")
    assert_close(record, evaluation_of(tmp_path / "run" / "checkpoints" / "best.ckpt"))
    written = [area for best, area in scores if best]
    assert mean_ap(pr_curves(record)) == pytest.approx(written[-1], abs=1e-6)


NAN = float("nan")


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
    given = iter(scores)
    from ssd_lightning.training.module import SSDModule

    log = SSDModule.log

    def log_given(self: SSDModule, name: str, value: Any, **settings: Any) -> None:
        log(self, name, torch.tensor(next(given)) if name == "val/map_11point" else value, **settings)

    monkeypatch.setattr(SSDModule, "log", log_given)
    trainer = train(tmp_path / "run", limit_train_batches=1)
    assert next(given, None) is None
    found = find_checkpoint(tmp_path / "run")
    assert best_checkpoint(trainer) == str(found)
    assert found.name == ("last.ckpt" if epoch is None else "best.ckpt")
    assert torch.load(found, weights_only=True)["global_step"] == (epoch or 3)
    assert_close(EvaluationRecord.load(tmp_path / "run" / "evaluations" / "val.npz"), evaluation_of(found))


def test_a_test_has_a_record_of_its_own_and_a_new_run_none_of_an_old_one(tmp_path: Path) -> None:
    run, folder = tmp_path / "run", tmp_path / "run" / "evaluations"
    trainer = train(run, max_epochs=1, limit_train_batches=1)
    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    record = EvaluationRecord.load(folder / "test.npz")
    assert (record.split, len(record.image_ids), record.class_names) == ("test", 11, ("cat", "dog"))
    assert {Path(path).is_file() for path in record.image_paths} == {True}
    assert [Path(path).stem for path in record.image_paths] == list(record.image_ids)
    train(run, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    assert list(folder.iterdir()) == []


def test_a_run_that_goes_on_elsewhere_takes_it_along(tmp_path: Path, whole: Path) -> None:
    train(tmp_path / "run", resume=whole / "checkpoints" / "last.ckpt")
    assert (tmp_path / "run" / "evaluations" / "val.npz").read_bytes() == (whole / "evaluations/val.npz").read_bytes()


def test_part_of_the_images_is_a_record_too(tmp_path: Path) -> None:
    train(tmp_path / "run", max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    record = EvaluationRecord.load(tmp_path / "run" / "evaluations" / "val.npz")
    assert sorted(record.image_ids) == ["0", "1", "2", "3"]


def test_a_full_disk_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(record: EvaluationRecord, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EvaluationRecord, "save", fail)
    train(tmp_path / "run", max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    assert "val.npz is not written" in caplog.text


def images_of(split: slice) -> tuple[list[Detections], list[Target]]:
    generator = torch.Generator().manual_seed(0)
    preds, targets = [], []
    for index in range(6):
        corner = torch.rand(3, 2, generator=generator) / 2
        boxes = torch.cat([corner, corner + 0.25], dim=1)
        scores = torch.tensor([0.75, 0.5, 0.25])
        labels = torch.tensor([1, 2, 1])
        preds.append(Detections(boxes=boxes, scores=scores, labels=labels))
        count = index % 3
        target = make_target(boxes[:count], labels[:count], image_id=str(index))
        targets.append({**target, "size_px": (10, index + 1)})  # type: ignore[typeddict-item]
    return preds[split], targets[split]


@pytest.mark.parametrize("split", [0, 2, 6])
def test_two_ranks_see_what_one_process_sees(split: int) -> None:
    """The exchange is played: what the other rank would send is what the metric receives."""
    first, second, whole = (VOCMeanAveragePrecision(2) for _ in range(3))
    whole.update(*images_of(slice(0, 6)))
    first.update(*images_of(slice(0, split)))
    second.update(*images_of(slice(max(0, split - 1), 6)))  # one image twice
    sent: list[torch.Tensor] = []
    second.sync(dist_sync_fn=lambda tensor, group: sent.append(tensor) or [tensor], distributed_available=lambda: True)  # type: ignore[func-returns-value]
    second.unsync()
    received = iter(sent)
    first.distributed_available_fn = lambda: True
    first.dist_sync_fn = lambda tensor, group: [tensor, next(received)]
    keys, evaluation = first.seen_by_all()
    expected_keys, expected = whole.seen_by_all()
    assert keys.tolist() == expected_keys.tolist() == sorted(image_key(str(index)) for index in range(6))
    for column, other in zip(
        (evaluation.sizes_px, *evaluation.detections, *evaluation.objects),
        (expected.sizes_px, *expected.detections, *expected.objects),
        strict=True,
    ):
        assert torch.equal(column, other)
    # What was seen here alone is as it was.
    first.distributed_available_fn = lambda: False
    assert len(first.evaluation().sizes_px) == split
