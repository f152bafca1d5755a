import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_lightning.data.toy_shapes import TOY_CLASSES
from ssd_lightning.errors import DataError
from ssd_lightning.inference.app.examples import MOST_EXAMPLES, data_of_run, find_examples


def make_images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((300, 500, 3), np.uint8)).save(folder / name)


def make_run(folder: Path, root: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"data:\n  root: {root}\n")
    return folder / "checkpoints" / "best.ckpt"


def test_those_of_a_folder(tmp_path: Path) -> None:
    make_images(tmp_path, "b.jpg", "a.png")
    (tmp_path / "notes.txt").write_text("none")
    examples = find_examples(tmp_path, Path("none.ckpt"), ["cat"])
    assert [example.name for example in examples] == ["a.png", "b.jpg"]
    assert [example.media_type for example in examples] == ["image/png", "image/jpeg"]
    assert examples[0].data == (tmp_path / "a.png").read_bytes()
    assert Image.open(io.BytesIO(examples[0].thumbnail)).size == (200, 120)


def test_few_of_many_from_all_over_the_folder(tmp_path: Path) -> None:
    make_images(tmp_path, *(f"{index:03d}.png" for index in range(50)))
    names = [example.name for example in find_examples(tmp_path, Path("none.ckpt"), ["cat"])]
    assert len(names) == MOST_EXAMPLES
    assert names[-1] > "040"


def test_a_broken_one_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_images(tmp_path, "good.png")
    (tmp_path / "bad.png").write_bytes(b"none")
    with caplog.at_level(logging.WARNING):
        assert [example.name for example in find_examples(tmp_path, Path("none.ckpt"), ["cat"])] == ["good.png"]
    assert "bad.png" in caplog.text


@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_without_images_is_refused(tmp_path: Path, is_there: bool) -> None:
    folder = tmp_path if is_there else tmp_path / "none"
    with pytest.raises(DataError, match="no image"):
        find_examples(folder, Path("none.ckpt"), TOY_CLASSES)


def test_those_of_the_runs_test_split(tmp_path: Path) -> None:
    """The root is relative to where the run was started, some folders above it."""
    make_images(tmp_path / "datasets" / "mine" / "JPEGImages", "train_1.jpg", "test_1.jpg", "test_2.jpg")
    splits = tmp_path / "datasets" / "mine" / "ImageSets" / "Main"
    splits.mkdir(parents=True)
    (splits / "test.txt").write_text("test_1\ntest_2\nmissing\n../../../secret\n")
    checkpoint = make_run(tmp_path / "outputs" / "name" / "1", "datasets/mine")
    for path in (checkpoint, checkpoint.parents[1]):
        examples = find_examples(None, path, ["cat"])
        assert [example.name for example in examples] == ["test_1.jpg", "test_2.jpg"]


def test_without_a_test_split_any_of_its_images(tmp_path: Path) -> None:
    make_images(tmp_path / "elsewhere" / "images" / "val", "a.jpg")
    checkpoint = make_run(tmp_path / "run", str(tmp_path / "elsewhere"))
    assert [example.name for example in find_examples(None, checkpoint, ["cat"])] == ["a.jpg"]


@pytest.mark.parametrize("text", ["data: {root: gone}", "data: null", "data: {}", "- a", "{", "", "data: {root: 3}"])
def test_data_that_are_no_longer_there(tmp_path: Path, text: str) -> None:
    checkpoint = make_run(tmp_path / "run", "x")
    (tmp_path / "run" / "config.yaml").write_text(text)
    assert data_of_run(checkpoint) is None
    assert find_examples(None, checkpoint, ["cat"]) == []


def test_for_toy_shapes_they_are_drawn(tmp_path: Path) -> None:
    examples = find_examples(None, tmp_path / "toy.onnx", TOY_CLASSES)
    assert len(examples) > 3
    assert len({example.data for example in examples}) == len(examples)
