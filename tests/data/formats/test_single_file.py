"""The folder of the images that an annotation file names."""

import json
from pathlib import Path

import pytest

from helpers.annotation_tools import A, paint
from ssd_lightning.data.formats import COCO, Auto
from ssd_lightning.errors import DataError


def write_coco(root: Path, file: str, *folders: str, name: str = "a.jpg") -> None:
    content = {"images": [{"id": 1, "file_name": name}], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))
    for folder in folders:
        paint(root / folder, [A])


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("annotations/{}_annotations.json", "images/{}"),
        ("annotations/{}_coco.json", "images/{}"),
        ("annotations/instances_{}.json", "images/{}2017"),
        ("annotations/instances_{}2017.json", "{}"),
        ("{}_coco.json", "imgs/{}"),
        ("{}/annotations/instances.json", "{}/images"),
        ("annotations/{}.json", "my set/photos/all of {}"),
    ],
)
def test_images_of_each_split_in_usual_and_other_places(file: str, folder: str, tmp_path: Path) -> None:
    for split in ("train", "val"):  # the images have the same names
        write_coco(tmp_path, file.format(split), folder.format(split))
    for split in ("train", "val"):
        found = Auto().read(tmp_path, split)
        assert list(found.columns.image_paths) == [str(tmp_path / folder.format(split) / "a.jpg")]


@pytest.mark.parametrize("name", ["a.jpg", "imgs/a.jpg", "/home/me/old/imgs/a.jpg", "C:\\old\\imgs\\a.jpg"])
def test_one_folder_at_any_depth_holds_the_images(name: str, tmp_path: Path) -> None:
    write_coco(tmp_path, "annotations/all.json", "raw/v2/imgs", name=name)
    assert list(COCO().read(tmp_path, "all").columns.image_paths) == [str(tmp_path / "raw/v2/imgs/a.jpg")]


def test_several_folders_hold_the_images(tmp_path: Path) -> None:
    write_coco(tmp_path, "annotations/train.json", "raw/imgs", "raw/thumbs")
    with pytest.raises(
        DataError, match=r"train\.json: .*'a\.jpg'.* raw/imgs, raw/thumbs.* data=coco_folder data\.images="
    ):
        COCO().read(tmp_path, "train")
    paint(tmp_path / "raw/train_imgs", [A])
    assert list(COCO().read(tmp_path, "train").columns.image_paths) == [str(tmp_path / "raw/train_imgs/a.jpg")]


def test_no_folder_holds_the_images(tmp_path: Path) -> None:
    write_coco(tmp_path, "annotations/instances_train.json", "images/val2017", "images/train2017")
    (tmp_path / "images/train2017/a.jpg").unlink()
    (problem,) = COCO().read(tmp_path, "train").problems
    assert problem.kind == "missing"
    for part in ("instances_train.json", "annotations, images", "images/val2017", "data=coco_folder data.images="):
        assert part in problem.text
