"""The dashboard in files, what it costs a training, and what it does where something is missing or fails."""

import csv
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from helpers.evaluation_records import LEFT, ImageSpec, make_record
from helpers.interrupted import PowerCut, also, assert_same_end, data, fit, module
from helpers.small_training import quiet_trainer
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.errors import ConfigurationError, DataError
from ssd_lightning.training.callbacks.dashboard import contents, sinks
from ssd_lightning.training.callbacks.dashboard.callback import Dashboard
from ssd_lightning.training.callbacks.dashboard.contents import Validation, choose_images
from ssd_lightning.training.callbacks.dashboard.sinks import FileSink
from ssd_lightning.training.fault_tolerance.resumption import find_resumable
from ssd_lightning.training.loggers import SturdyCSVLogger

Seen = dict[str, list[Any]]


def look(patch: pytest.MonkeyPatch) -> Seen:
    """Note what files are shown, by the method that shows it, until the patch ends."""
    seen: Seen = {}

    def note(name: str, show: Callable[..., None]) -> Callable[..., None]:
        def noted(self: FileSink, content: Any, *more: Any, **settings: Any) -> None:
            seen.setdefault(name, []).append(content)
            show(self, content, *more, **settings)

        return noted

    for name in ("show_batch", "show_matches", "show_validation"):
        patch.setattr(FileSink, name, note(name, getattr(FileSink, name)))
    return seen


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    monkeypatch.setattr(FileSink, "_write", lambda *_: None)
    return look(monkeypatch)


def train(run: Path, **settings: Any) -> pl.Trainer:
    own = {key: settings.pop(key) for key in ("every_n_validations", "num_images") if key in settings}
    watch = Dashboard(**{"every_n_validations": 1, "num_images": 4, **own})
    return fit(run, callbacks=(watch,), default_root_dir=run, **settings)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Validation]]:
    """A run with a log, and the validations that it showed."""
    run = tmp_path_factory.mktemp("shown") / "run"
    with pytest.MonkeyPatch.context() as patch:
        seen = look(patch)
        train(run, logger=[SturdyCSVLogger(save_dir=str(run), name="", version="")])
    return run, seen["show_validation"]


def test_a_run_leaves_its_images_and_is_trained_as_without(shown: tuple[Path, list[Validation]], whole: Path) -> None:
    folder = shown[0] / "dashboard"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    sheets = {f"images/epoch_000{epoch}_step_00000{step}.jpg" for epoch, step in enumerate(("04", "09", "14"))}
    assert files == {"training_batch.jpg", "matched_priors.png", *sheets}
    for name in files:
        with Image.open(folder / name) as image:
            assert min(image.size) > 200
            assert np.asarray(image.convert("L")).std() > 5  # there is something on it
    assert_same_end(shown[0], whole)


def test_scores_are_those_of_the_log(shown: tuple[Path, list[Validation]]) -> None:
    run, validations = shown
    with (run / "metrics.csv").open(newline="") as file:
        logged = [row for row in csv.DictReader(file) if row["val/map_area"]]
    assert [int(row["step"]) for row in logged] == [validation.step for validation in validations]
    rows = validations[-1].rows()
    assert [row[0] for row in rows] == ["cat", "dog"]
    of_log = [float(logged[-1][f"val/ap_11point/{row[0]}"]) for row in rows]
    assert [row[2] for row in rows] == pytest.approx(of_log, abs=1e-6)
    assert np.mean([row[3] for row in rows]) == pytest.approx(float(logged[-1]["val/map_area"]), abs=1e-6)
    assert validations[-1].confusion[1:].sum(axis=1).tolist() == [11, 11]


def test_a_run_that_goes_on_shows_what_it_would_have_shown(
    tmp_path: Path, whole: Path, shown: tuple[Path, list[Validation]], seen: Seen
) -> None:
    (_, uncut), run = shown, tmp_path / "run"
    with pytest.raises(PowerCut):
        train(run, cut=("on_train_batch_end", 8), every_n_steps=1)
    assert len(seen["show_validation"]) == 1
    train(run, resume=find_resumable(run), every_n_steps=1)
    assert_same_end(run, whole)
    assert len(uncut) == 3
    for one, two in zip(uncut, seen["show_validation"], strict=True):
        assert (two.epoch, two.step, two.epochs) == (one.epoch, one.step, one.epochs)
        assert np.array_equal(two.class_ap, one.class_ap, equal_nan=True)
        assert [image.image_id for image in two.images] == [image.image_id for image in one.images]
        assert all(np.array_equal(a.image, b.image) for a, b in zip(one.images, two.images, strict=True))
        assert np.array_equal(two.confusion, one.confusion)
    names = [[image.image_id for image in validation.images] for validation in uncut]
    assert names[0] == names[1] == names[2]
    assert len(set(names[0])) == 4


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        also({"every_n_validations": 9}, [0, 2]),
        also({"every_n_validations": 9, "check_val_every_n_epoch": 2}, [1]),
        ({"every_n_validations": 9, "max_steps": 5, "accumulate_grad_batches": 2}, [0]),
        ({"every_n_validations": 3, "val_check_interval": 2}, [0, 1, 2, 2]),
    ],
    ids=str,
)
def test_some_validations_are_shown_the_last_one_always(
    tmp_path: Path, seen: Seen, settings: dict, shown: list[int]
) -> None:
    train(tmp_path / "run", limit_val_batches=1, **settings)
    assert [validation.epoch for validation in seen["show_validation"]] == shown
    assert list(seen) == ["show_batch", "show_matches", "show_validation"]


def test_sheets_are_thinned_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "MOST_SHEETS", 3)
    for epoch in range(5):
        validation = SimpleNamespace(epoch=epoch, step=epoch, sheet=np.zeros((8, 8, 3), np.uint8))
        FileSink(tmp_path).show_validation(validation)  # type: ignore[arg-type]
    sheets = sorted(path.name[:10] for path in (tmp_path / "images").iterdir())
    assert len(sheets) <= 3
    assert (sheets[0], sheets[-1]) == ("epoch_0000", "epoch_0004")


def test_without_validation_the_training_alone_is_shown(
    tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helpers.interrupted.BestCheckpoint", lambda **_: pl.Callback())
    train(tmp_path / "run", max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    assert list(seen) == ["show_batch", "show_matches"]


def test_without_a_data_module_or_in_a_trial_nothing_is_written(tmp_path: Path) -> None:
    train(tmp_path / "run", fast_dev_run=True)
    loader = data(tmp_path).train_dataloader()
    quiet_trainer(max_steps=1, default_root_dir=tmp_path / "bare", callbacks=[Dashboard()]).fit(module(), loader)
    assert [*tmp_path.rglob("dashboard"), *tmp_path.rglob("*.ckpt")] == []


def test_a_small_split_is_shown_whole_but_for_images_that_are_gone(
    tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = contents.read_image

    def read_some(path: Path, size_px: Any) -> np.ndarray:
        if Path(path).name == "3.png":
            raise DataError("gone")
        return read(path, size_px)

    monkeypatch.setattr(contents, "read_image", read_some)
    train(tmp_path / "run", num_images=16, max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    assert [image.image_id for image in seen["show_validation"][0].images] == ["0", "1", "2"]  # a batch of four


def test_what_fails_is_reported_once_and_the_training_goes_on_as_without(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        random.random()
        np.random.rand()  # noqa: NPY002
        torch.rand(1)
        raise OSError("No space left on device")

    monkeypatch.setattr(FileSink, "show_validation", fail)
    train(tmp_path / "run")  # three validations
    (told,) = (message for message in caplog.messages if "dashboard" in message)
    assert "No space left" in told
    assert_same_end(tmp_path / "run", whole)


@pytest.mark.parametrize(
    "settings", [{"every_n_validations": 0}, {"num_images": -1}, {"score_threshold": 1.5}, {"seed": 0.5}], ids=str
)
def test_settings_that_cannot_work_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigurationError, match=rf"callbacks.dashboard.{next(iter(settings))}"):
        Dashboard(**settings)


def record_of(labels_of_images: list[list[int]], num_classes: int) -> EvaluationRecord:
    """Make a record of images with objects of these classes and no detection."""
    images = [ImageSpec([(LEFT, label, False) for label in labels]) for labels in labels_of_images]
    return make_record(images, num_classes=num_classes)


def test_images_are_chosen_by_chance_but_of_all_classes() -> None:
    record = record_of([[1]] * 500 + [[2], [], [3, 1], [4]], num_classes=5)
    choices = [choose_images(record, 16, seed) for seed in (0, 1, 2, 2)]
    for chosen in choices:
        assert len(set(chosen)) == 16
        assert {"000500", "000502", "000503"} <= set(chosen)  # the only ones with classes 2, 3 and 4
    assert len(set(choices)) == 3


@pytest.mark.parametrize(("images", "count"), [(0, 16), (3, 16), (3, 0), (40, 16)])
def test_there_are_as_many_as_there_can_be(images: int, count: int) -> None:
    chosen = choose_images(record_of([[]] * images, num_classes=1), count, 0)
    assert len(set(chosen)) == len(chosen) == min(images, count)
