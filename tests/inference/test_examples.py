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


def names_of(folder: Path | None, checkpoint: Path = Path("none.ckpt")) -> list[str]:
    return [path.name for path in find_examples(folder, checkpoint, ["cat"], scratch=checkpoint.parent)]


def test_few_images_from_all_over_a_folder_without_broken_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="no image"):
            names_of(folder)
    make_images(tmp_path, *(f"{index:03d}.png" for index in range(50)))
    (tmp_path / "000.png").write_bytes(b"none")
    names = names_of(tmp_path)
    assert len(names) == MOST_EXAMPLES - 1
    assert names[-1] > "040"
    assert "000.png" in caplog.text


def test_those_of_the_runs_test_split(tmp_path: Path) -> None:
    """The root is relative to where the run was started, some folders above it."""
    make_images(tmp_path / "datasets" / "mine" / "JPEGImages", "train_1.jpg", "test_1.jpg", "test_2.jpg")
    splits = tmp_path / "datasets" / "mine" / "ImageSets" / "Main"
    splits.mkdir(parents=True)
    (splits / "test.txt").write_text("test_1\ntest_2\nmissing\n../../../secret\n")
    checkpoint = make_run(tmp_path / "outputs" / "name" / "1", "datasets/mine")
    for path in (checkpoint, checkpoint.parents[1]):
        assert names_of(None, path) == ["test_1.jpg", "test_2.jpg"]


def test_without_a_test_split_any_image_of_the_data_if_it_exists(tmp_path: Path) -> None:
    make_images(tmp_path / "elsewhere" / "images" / "val", "a.jpg")
    checkpoint = make_run(tmp_path / "run", str(tmp_path / "elsewhere"))
    assert names_of(None, checkpoint) == ["a.jpg"]
    for text in ("data: {root: gone}", "data: null", "- a", "{", "", "data: {root: 3}"):
        (tmp_path / "run" / "config.yaml").write_text(text)
        assert data_of_run(checkpoint) is None
        assert names_of(None, checkpoint) == []
    drawn = find_examples(None, checkpoint, TOY_CLASSES, scratch=tmp_path)
    assert len({path.read_bytes() for path in drawn}) == len(drawn) > 3
