"""Validation and test images that are training images too."""

import logging
import os
from pathlib import Path

import pytest

from helpers.datasets import annotation
from ssd_lightning.data import overlap
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.overlap import copies_across, warn_of_training_images


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


def test_training_images_and_their_copies_are_named_in_the_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, {"train/a": b"1", "train/b": b"2", "val/a": b"3", "val/copy": b"1"})
    train, val = (
        DetectionDataset(annotations=[annotation(tmp_path / name) for name in names], class_names=["x"])
        for names in (("train/a", "train/b"), ("val/a", "val/copy", "train/b"))
    )
    warn_of_training_images(val, "val", train)
    assert caplog.messages == [
        "2 of 3 validation images are training images too, so scores on them say little about new images:\n"
        f"  {tmp_path}/train/b\n  {tmp_path}/val/copy, a copy of {tmp_path}/train/a"
    ]
