import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_lightning.data.toy_shapes import TOY_CLASSES
from ssd_lightning.errors import DataError
from ssd_lightning.inference.examples import MOST_EXAMPLES, data_of_run, find_examples


def make_images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((30, 50, 3), np.uint8)).save(folder / name)


def make_run(folder: Path, root: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"data:\n  root: {root}\n")
    return folder / "checkpoints" / "best.ckpt"


def names_of(folder: Path | None, checkpoint: Path, class_names: tuple[str, ...] = ("cat",)) -> list[str]:
    return [path.name for path in find_examples(folder, checkpoint, class_names, scratch=checkpoint.parent)]


def test_few_images_from_all_over_a_folder_without_broken_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_images(tmp_path, *(f"{index:03d}.png" for index in range(50)))
    (tmp_path / "000.png").write_bytes(b"none")
    with caplog.at_level(logging.WARNING):
        names = names_of(tmp_path, Path("none.ckpt"))
    assert len(names) == MOST_EXAMPLES - 1
    assert names[-1] > "040"
    assert "000.png" in caplog.text


@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_without_images_is_refused(tmp_path: Path, is_there: bool) -> None:
    folder = tmp_path if is_there else tmp_path / "none"
    with pytest.raises(DataError, match="no image"):
        names_of(folder, Path("none.ckpt"))


def test_those_of_the_runs_test_split(tmp_path: Path) -> None:
    """The root is relative to where the run was started, some folders above it."""
    make_images(tmp_path / "datasets" / "mine" / "JPEGImages", "train_1.jpg", "test_1.jpg", "test_2.jpg")
    splits = tmp_path / "datasets" / "mine" / "ImageSets" / "Main"
    splits.mkdir(parents=True)
    (splits / "test.txt").write_text("test_1\ntest_2\nmissing\n../../../secret\n")
    checkpoint = make_run(tmp_path / "outputs" / "name" / "1", "datasets/mine")
    for path in (checkpoint, checkpoint.parents[1]):
        assert names_of(None, path) == ["test_1.jpg", "test_2.jpg"]


def test_without_a_test_split_any_image_of_the_data(tmp_path: Path) -> None:
    make_images(tmp_path / "elsewhere" / "images" / "val", "a.jpg")
    assert names_of(None, make_run(tmp_path / "run", str(tmp_path / "elsewhere"))) == ["a.jpg"]


@pytest.mark.parametrize("text", ["data: {root: gone}", "data: null", "- a", "{", "", "data: {root: 3}"])
def test_data_that_no_longer_exist(tmp_path: Path, text: str) -> None:
    checkpoint = make_run(tmp_path / "run", "x")
    (tmp_path / "run" / "config.yaml").write_text(text)
    assert data_of_run(checkpoint) is None
    assert names_of(None, checkpoint) == []


def test_for_toy_shapes_they_are_drawn(tmp_path: Path) -> None:
    examples = find_examples(None, tmp_path / "toy.onnx", TOY_CLASSES, scratch=tmp_path)
    assert len({path.read_bytes() for path in examples}) == len(examples) > 3
