"""Validation and test images that are training images too."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.datasets import annotation, opener
from ssd_lightning.data import overlap
from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.data.formats import Records
from ssd_lightning.data.overlap import copies_across, shared_paths, warn_of_training_images


def test_images_of_two_tables_are_shared_if_id_and_path_are_the_same() -> None:
    images = [annotation(f"/folder/{number}.jpg") for number in range(3)]
    table = AnnotationTable.of(images)
    moved = replace(images[2], image_path=Path("/other/2.jpg"))
    assert shared_paths(table.select(np.array([2, 1])), AnnotationTable.of([images[1], moved])) == ["/folder/1.jpg"]
    assert shared_paths(table, AnnotationTable.of([])) == []


def write(root: Path, files: dict[str, bytes]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
        splits.setdefault(name.split("/")[0], []).append(str(root / name))
    return splits


LONG = bytes(range(256)) * 40


def test_files_of_the_same_bytes_are_found(tmp_path: Path) -> None:
    contents = {
        "train": {"a": LONG, "b": LONG, "c": b"1" + LONG, "d": b"x", "e": b""},
        "val": {"same": LONG, "start": b"2" + LONG, "end": LONG[:-1] + b"2", "size": LONG[1:], "empty": b""},
        "test": {"d": b"x", "within": b"yy", "within_too": b"yy"},
    }
    splits = write(tmp_path, {f"{split}/{name}": data for split, of in contents.items() for name, data in of.items()})
    splits["val"].append(str(tmp_path / "gone"))
    found = copies_across(splits)
    names = {split: {os.path.basename(path) for path in files} for split, files in found.items()}
    assert names == {"train": {"a", "b", "d"}, "val": {"same"}, "test": {"d"}}
    (digest,) = set(found["val"].values())
    assert [os.path.basename(path) for path, of_file in found["train"].items() if of_file == digest] == ["a", "b"]


def test_only_files_whose_size_another_split_has_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = write(tmp_path, {"train/a": b"1", "train/b": b"22", "val/c": b"333", "val/d": b"44"})
    read: list[str] = []
    end = overlap._end
    monkeypatch.setattr(overlap, "_end", lambda path: read.append(os.path.basename(path)) or end(path))
    monkeypatch.setattr(overlap, "checksum", lambda path: pytest.fail("a whole file was read"))
    assert copies_across(splits) == {"train": {}, "val": {}}
    assert sorted(read) == ["b", "d"]


@pytest.mark.parametrize(("limit", "found"), [("MOST_FILES", 0), ("MOST_READ", 3)])
def test_the_cost_is_bounded(
    limit: str, found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = {f"{split}/{number}": bytes(number) for split in ("train", "val") for number in range(1, 9)}
    splits = write(tmp_path, files)
    monkeypatch.setattr(overlap, limit, 3)
    with caplog.at_level(logging.DEBUG):
        assert len(copies_across(splits)["val"]) == found
    assert caplog.messages


def test_copies_of_training_images_are_named_in_the_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, names in enumerate((["a", "copy"], ["b"], ["c"])):
        for name in names:
            Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / f"{name}.png")
    box = {"boxes": [[1, 2, 9, 9]], "labels": ["cat"]}
    names_of = {"train": ("a", "b"), "val": ("copy", "b", "c")}
    records = {split: [{"image": f"{name}.png", **box} for name in names] for split, names in names_of.items()}
    opened = opener(Records, **records)
    datasets = {split: opened(splits=[{"root": str(tmp_path), "split": split}]) for split in records}
    warn_of_training_images(datasets["val"], "val", datasets["train"])
    (line,) = caplog.messages
    assert line.startswith("2 of 3 validation images are training images too")
    assert f"{tmp_path}/copy.png, a copy of {tmp_path}/a.png" in line
