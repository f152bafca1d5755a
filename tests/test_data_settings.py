"""A checkpoint keeps the settings that choose images and classes, and its evaluation uses them."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate

from ssd_lightning.config import compose_config
from ssd_lightning.data_settings import data_settings, use_data_settings
from ssd_lightning.errors import WeightsError

TRAINED = [
    "data.test_fraction=0.2", "data.fold=1", "data.num_folds=5", "data.train_split=mine", "data.exclude_classes=[tree]",
    "data.merge_classes={vehicle: [car, bus]}", "data.train=[{root: a, split: b}]", "data.batch_size=7",
    "data.on_error=skip",
]  # fmt: skip


def composed(command: str, *overrides: str, data: str = "csv_folder", root: str = "photos") -> Any:
    return compose_config(command, [f"data={data}", f"data.root={root}", *overrides])


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return data_settings(composed("train", *TRAINED))


def used(config: Any, kept: Any, monkeypatch: pytest.MonkeyPatch, *command_line: str) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["evaluate", *command_line])
    use_data_settings(config, kept, checkpoint="best.ckpt")
    return data_settings(config)


def test_the_same_data_are_opened_as_in_training(
    kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = composed("evaluate", root=f"{Path.cwd()}/photos/")
    with caplog.at_level(logging.INFO):
        now = used(config, kept, monkeypatch)
    assert now | {"root": "photos"} == kept
    assert config.data.batch_size == 32
    module = instantiate(config.data.module.train, _convert_="all")
    assert (module["fold"], module["sets"]) == (1, [{"root": "a", "split": "b"}])
    (line,) = caplog.messages
    assert line.startswith("best.ckpt: ")
    assert "data.fold=1" in line
    assert "data.val_fraction" not in line  # it is the default in both


@pytest.mark.parametrize(
    ("data", "setting", "value"),
    [("csv_folder", "unit", "fractions"), ("voc_folder", "xml_offset", 0), ("coco_folder", "images", "shots")],
)
def test_annotations_are_read_as_in_training(
    monkeypatch: pytest.MonkeyPatch, data: str, setting: str, value: Any
) -> None:
    trained = data_settings(composed("train", f"data.{setting}={value}", data=data))
    assert used(composed("evaluate", data=data), trained, monkeypatch)[setting] == value


@pytest.mark.parametrize("root", ["{start}/photos", "../photos", "photos"])  # the last as in a project that was moved
def test_the_same_data_from_another_folder(kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    start = Path.cwd()
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    root = root.replace("..", os.path.relpath(start)).format(start=start)
    assert used(composed("evaluate", root=root), kept, monkeypatch)["fold"] == 1


def test_the_command_line_wins(kept, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["data.val_fraction=0.3", "+data.exclude_classes=null"]
    now = used(composed("evaluate", given[0]), kept, monkeypatch, *given)
    assert (now["val_fraction"], now["fold"], now["num_folds"]) == (0.3, None, None)  # a fold would replace the share
    assert (now["exclude_classes"], now["test_fraction"]) == (None, 0.2)


@pytest.mark.parametrize(
    ("other", "said"),
    [({"root": "elsewhere"}, "data.root=photos, "), ({"data": "yolo_folder"}, "data.root=photos with another data=, ")],
)
def test_other_data_have_the_classes_alone(
    kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, other: dict[str, str], said: str
) -> None:
    with caplog.at_level(logging.INFO):
        now = used(composed("evaluate", **other), kept, monkeypatch)
    assert now["merge_classes"] == {"vehicle": ["car", "bus"]}
    assert (now["fold"], now["test_fraction"], now["train"], now["on_error"]) == (None, 0.0, None, "raise")
    assert f"trained on {said}" in caplog.messages[1]
    assert "data.fold=1" in caplog.messages[1]


@pytest.mark.parametrize(
    "hostile",
    [
        {"merge_classes": {"_target_": "os.system", "command": "true"}},
        {"train": [{"root": "a", "format": {"_target_": "os.system", "command": "true"}}]},
        {"exclude_classes": ["${oc.env:HOME}"]},
        {"rename_classes": {1: "x"}},
        ["tree"],
    ],
)
def test_a_checkpoint_can_neither_build_objects_nor_read_the_environment(
    monkeypatch: pytest.MonkeyPatch, hostile: Any
) -> None:
    with pytest.raises(WeightsError, match=r"best\.ckpt: its settings of the data"):
        used(composed("evaluate"), hostile, monkeypatch)


def test_an_older_checkpoint_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert used(composed("evaluate"), None, monkeypatch)["val_fraction"] == 0.1
