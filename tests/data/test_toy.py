import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.datasets import open_voc
from ssd_lightning.data import toy
from ssd_lightning.data.toy import TOY_CLASSES, write_toy_dataset
from ssd_lightning.data.toy_scene import draw_toy_image
from ssd_lightning.errors import ConfigurationError, DataError

SMALL = {"num_train": 2, "num_val": 1, "num_test": 2, "image_size_px": (96, 128)}


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_reading_back_gives_what_was_drawn(tmp_path):
    write_toy_dataset(tmp_path / "toy", **(SMALL | {"num_train": 12}), seed=3)
    dataset = open_voc(splits=[{"root": str(tmp_path / "toy"), "split": "train"}], class_names=TOY_CLASSES)
    assert len(dataset) == 12
    for index in range(12):
        image, target = dataset[index]
        drawn, items = draw_toy_image(seed=3, split="train", index=index, size_px=(96, 128))
        read = target["boxes"].numpy() * [128, 96, 128, 96]
        drawn_boxes = np.array([item.box_xyxy_px for item in items]).reshape(-1, 4)
        np.testing.assert_allclose(read[:, :2], drawn_boxes[:, :2], atol=1e-3)
        # Readers differ in whether the last pixel of an inclusive box counts.
        assert (np.abs(read[:, 2:] - drawn_boxes[:, 2:] + 0.5) <= 0.501).all()
        assert target["labels"].tolist() == [item.label for item in items]
        assert target["difficult"].tolist() == [item.difficult for item in items]
        assert target["size_px"] == (96, 128)
        difference = image.numpy().transpose(1, 2, 0).astype(float) - drawn
        assert np.abs(difference).mean() < 12  # JPEG halves the resolution of colour
        assert abs(difference.mean()) < 2


def test_layout_and_splits(tmp_path):
    root = tmp_path / "a" / "toy"
    write_toy_dataset(root, **SMALL)
    lists = {p.stem: p.read_text().split() for p in (root / "ImageSets/Main").iterdir()}
    assert {name: len(names) for name, names in lists.items()} == {"train": 2, "val": 1, "trainval": 3, "test": 2}
    assert lists["trainval"] == lists["train"] + lists["val"]
    for folder in ("JPEGImages", "Annotations"):
        assert sorted(p.stem for p in (root / folder).iterdir()) == sorted(lists["trainval"] + lists["test"])
    write_toy_dataset(tmp_path / "none", num_train=0, num_val=0, num_test=0)
    assert (tmp_path / "none/ImageSets/Main/train.txt").read_text() == ""


def test_same_seed_gives_the_same_bytes_and_others_differ(tmp_path):
    write_toy_dataset(tmp_path / "a", **SMALL, seed=5)
    write_toy_dataset(tmp_path / "b", **SMALL, seed=5)
    write_toy_dataset(tmp_path / "c", **SMALL, seed=6)
    write_toy_dataset(tmp_path / "d", **(SMALL | {"num_train": 3}), seed=5)
    a, b, c, d = (contents(tmp_path / name) for name in "abcd")
    assert a == b
    images = [name for name in a if name.endswith(".jpg")]
    assert len({a[name] for name in images} | {c[name] for name in images}) == 2 * len(images)
    assert all(d[name] == a[name] for name in images)


@pytest.mark.parametrize("lost", [None, "JPEGImages/train_00000.jpg", "Annotations/test_00001.xml"])
def test_a_second_call_mends_an_incomplete_set_and_touches_no_other(tmp_path, lost):
    write_toy_dataset(tmp_path, **SMALL)
    whole, before = contents(tmp_path), {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    if lost:
        (tmp_path / lost).unlink()
    write_toy_dataset(tmp_path, **SMALL)
    assert contents(tmp_path) == whole
    assert lost or {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


OTHER = SMALL | {"num_train": 1, "seed": 2}


def test_other_settings_replace_the_set_and_an_interruption_leaves_no_half_set(tmp_path, monkeypatch):
    root = tmp_path / "toy"
    write_toy_dataset(root, **SMALL, seed=1)
    before = contents(root)
    draw = toy.draw_toy_image

    def interrupted(**settings):
        if settings["split"] == "val":
            raise KeyboardInterrupt
        return draw(**settings)

    with monkeypatch.context() as patch:
        patch.setattr(toy, "draw_toy_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_toy_dataset(root, **OTHER)
    assert contents(root) == before
    write_toy_dataset(root, **OTHER)
    write_toy_dataset(tmp_path / "fresh", **OTHER)
    assert contents(root) == contents(tmp_path / "fresh")
    assert {p.name for p in tmp_path.iterdir() if p.suffix != ".lock"} == {"fresh", "toy"}


@pytest.mark.parametrize(
    ("changed", "told"), [("notes.txt", r"no toy\.json"), ("toy.json", r"no toy\.json"), ("JPEGImages/1.jpg", "1.jpg")]
)
def test_other_peoples_files_stay(tmp_path, changed, told):
    root = tmp_path / "data"
    root.mkdir()
    if changed != "notes.txt":
        write_toy_dataset(root, **SMALL)
    if changed == "toy.json":
        (root / changed).unlink()
    else:
        (root / changed).write_text("precious")
    before = contents(root)
    with pytest.raises(DataError, match=told):
        write_toy_dataset(root, **SMALL, seed=9)
    assert contents(root) == before


def test_the_current_directory_stays_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_toy_dataset(".", num_train=1, num_val=0, num_test=0)
    assert Path("toy.json").is_file()
    assert [*tmp_path.parent.glob(f".{tmp_path.name}.toy-*")] == []


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "toy").write_text("precious")
    with pytest.raises(DataError, match="is a file"):
        write_toy_dataset(tmp_path / "toy", **SMALL)
    (tmp_path / "toy").rename(tmp_path / "parent")
    with pytest.raises(DataError, match="cannot be written"):
        write_toy_dataset(tmp_path / "parent" / "toy", **SMALL)
    assert (tmp_path / "parent").read_text() == "precious"


@pytest.mark.parametrize("wrong", [{"num_train": -1}, {"num_test": -5}, {"seed": -1}, {"image_size_px": (192, 64)}])
def test_settings_that_cannot_work(tmp_path, wrong):
    with pytest.raises(ConfigurationError, match=r"-1|-5|64"):
        write_toy_dataset(tmp_path / "toy", **(SMALL | wrong))
    assert not (tmp_path / "toy").exists()


def test_of_several_processes_one_draws_and_the_others_wait(tmp_path, monkeypatch):
    fork, draw = multiprocessing.get_context("fork"), toy.draw_toy_image
    drawn = fork.Value("i", 0)

    def slow(**settings):
        with drawn.get_lock():
            drawn.value += 1
        time.sleep(0.1)
        return draw(**settings)

    monkeypatch.setattr(toy, "draw_toy_image", slow)
    ranks = [fork.Process(target=write_toy_dataset, args=(tmp_path / "toy",), kwargs=SMALL) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert drawn.value == len(list((tmp_path / "toy/JPEGImages").iterdir())) == 5
