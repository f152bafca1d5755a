"""What was read once is mapped by all, until a file changes or the cache is damaged."""

import logging
import multiprocessing
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from PIL import Image

from helpers.annotation_tools import A, paint, write_coco, write_voc
from ssd_lightning.data import annotation_cache
from ssd_lightning.data.annotation_cache import read_cached
from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.data.formats import COCO, CSV
from ssd_lightning.data.formats.detect import Auto
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.data.split_annotations import Annotations


@dataclass(frozen=True, kw_only=True)
class Counted(CSV):
    """A reader that notes each reading in a file."""

    notes: Path
    slow_s: float = 0.0

    def read(self, root: Path, split: str) -> Annotations:
        time.sleep(self.slow_s)
        with self.notes.open("a") as file:
            file.write("read\n")
        return super().read(root, split)

    def cached(self, root: Path) -> Annotations:
        return read_cached(self, root, "train", folder=self.notes.with_name("cache"))

    @property
    def times(self) -> int:
        return self.notes.read_text().count("read")


@pytest.fixture
def reader(tmp_path: Path) -> Counted:
    return Counted(notes=tmp_path / "notes")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (200, 100)).save(folder / f"images/{name}.jpg")
    write(folder, "a.jpg,cat,1,2,30,40", "b.jpg,dog,5,5,300,50", "b.jpg,dog,9,9,9,20")
    monkeypatch.setattr(annotation_cache, "SLOWEST_UNCACHED_S", 0.0)
    make_old(folder)
    return folder


def make_old(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        os.utime(path, (1e9, 1e9))


def write(root: Path, *rows: str) -> None:
    (root / "train.csv").write_text("\n".join(["image,label,xmin,ymin,xmax,ymax", *rows]) + "\n")


def plain(found: Annotations) -> object:
    rows = [(one.image_id, one.boxes_xyxy_px.tolist(), one.labels.tolist()) for one in AnnotationTable(found.columns)]
    return rows, list(found.names), list(map(str, found.problems)), found.columns.overhangs.tolist(), list(found.notes)


def test_a_second_opening_maps_what_the_first_has_read(root: Path, reader: Counted) -> None:
    first, second = reader.cached(root), reader.cached(root)
    assert reader.times == 1
    assert plain(first) == plain(second) == plain(CSV().read(root, "train"))
    assert first.columns.folder is not None
    assert second.problems[0] == first.problems[0]
    read_cached(reader, root, "train", folder=None)
    assert reader.times == 2


@pytest.mark.parametrize("change", ["annotation", "added image", "removed image"])
def test_a_change_of_the_files_is_read_with_a_line(
    root: Path, reader: Counted, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    reader.cached(root)
    if change == "annotation":
        write(root, "a.jpg,cow,1,2,30,40")
    elif change == "added image":
        (root / "images/c.jpg").touch()
    else:
        (root / "images/a.jpg").unlink()
    with caplog.at_level(logging.INFO):
        found = reader.cached(root)
    assert reader.times == 2
    assert plain(found) == plain(CSV().read(root, "train"))
    assert f"{root / ('train.csv' if change == 'annotation' else 'images')} has changed" in caplog.text


def test_a_damaged_cache_is_read_again_with_a_line(
    root: Path, reader: Counted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = plain(reader.cached(root))
    (place,) = (path for path in (tmp_path / "cache/annotations").iterdir() if path.is_dir())
    names = sorted(path.name for path in place.iterdir())
    assert len(names) > 10
    for number, name in enumerate(names, start=2):
        data = (place / name).read_bytes()
        changed = (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b"")[number % 3]
        (place / name).write_bytes(changed)
        caplog.clear()
        assert plain(reader.cached(root)) == expected, name
        assert reader.times == number, name
        assert f"{place}: the kept annotations are damaged" in caplog.text


def test_files_that_are_being_written_are_not_kept(
    root: Path, reader: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    os.utime(root / "train.csv")
    for _ in range(2):
        assert reader.cached(root).columns.folder is None
    assert reader.times == 2
    assert not caplog.messages


def test_one_process_reads_and_the_others_wait(root: Path, tmp_path: Path) -> None:
    reader = Counted(notes=tmp_path / "notes", slow_s=0.5)
    processes = [multiprocessing.get_context("fork").Process(target=reader.cached, args=(root,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert reader.times == 1


def test_a_folder_that_cannot_be_written_costs_the_cache_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = read_cached(CSV(), root, "train", folder=tmp_path / "file/cache")
    assert plain(found) == plain(CSV().read(root, "train"))


def test_a_missing_image_that_arrives_is_used(root: Path, tmp_path: Path) -> None:
    image = replace(A, name="c.jpg")
    write_coco(root, "other", [image])
    shutil.rmtree(root / "other")
    make_old(root)
    for count in (0, 1):
        assert len(read_cached(COCO(), root, "other", folder=tmp_path / "cache").columns.image_ids) == count
        paint(root / "other", [image])


def test_a_list_that_makes_another_split_of_a_detected_folder_is_read(root: Path, tmp_path: Path) -> None:
    (root / "train.csv").unlink()
    write_voc(root, "trainval", [A, replace(A, name="b.jpg")])
    make_old(root)

    def opened() -> list[str]:
        opener = DatasetOpener(format=Auto(), cache_folder=tmp_path / "cache")
        return list(opener(splits=[{"root": root, "split": "train"}]).annotations.image_ids)

    assert opened() == ["a", "b"]
    (root / "ImageSets/Main/train.txt").write_text("b\n")
    assert opened() == ["b"]
