"""Which splits are trained on, validated on and tested on: what is stated, what is found, what is held out."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate

from helpers.annotation_tools import CASES, IMAGES, put
from helpers.datasets import opener
from ssd_lightning.config import compose_config
from ssd_lightning.data.detection_data import DetectionData
from ssd_lightning.data.formats import COCO, VOC, YOLO
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.data.split_names import SPLIT_NAMES
from ssd_lightning.data.stages import plan_stages
from ssd_lightning.errors import ConfigurationError, DataError

ANNOTATED = tuple(image for image in IMAGES if image.things)


def stages(root: Path, *, train: str = "train", val: str | None = "auto", test: str | None = "test") -> dict[str, Any]:
    """What `conf/data/layout/folder.yaml` hands over."""
    splits = {stage: [{"root": str(root), "split": split}] for stage, split in locals().items() if stage != "root"}
    return {
        "train": {"splits": splits["train"], "part": "train", "val_fraction": 0.4, "keep_difficult": False},
        "val": {"splits": splits["val"]},
        "test": {"splits": splits["test"]},
    }


def names_of(chosen: Mapping[str, Any]) -> list[str | None]:
    return [arguments and arguments["splits"][0]["split"] for arguments in chosen.values()]


def write_splits(form: str, root: Path, *splits: str) -> None:
    root.mkdir(exist_ok=True)
    for split, image in zip(splits, ANNOTATED, strict=False):
        CASES[form].write(root, split, [image])


def module_of(*overrides: str) -> DetectionData:
    return instantiate(compose_config("train", list(overrides)).data.module, _convert_="all")


AUTO: dict[str, Any] = {"test": "auto"}
FOUND = ["train", "val", "test"]


@pytest.mark.parametrize(
    ("form", "there", "stated", "expected"),
    [
        *((form, FOUND, {}, FOUND) for form in ("labelimg", "coco", "yolo", "yolo list", "csv", "openimages")),
        *(("voc", ["train", name, "test"], {}, ["train", name, "test"]) for name in ("validation", "eval", "dev")),
        *((form, ["train", "valid"], AUTO, ["train", "valid", None]) for form in ("voc", "yolo", "bananas")),
        ("voc", ["train", "valid"], {"test": None}, ["train", "valid", None]),
        ("voc", ["train", "valid"], {"val": "valid", "test": "valid"}, ["train", "valid", "valid"]),
        ("voc", ["train", "valid"], {"val": "valid", "test": None}, ["train", "valid", None]),
        ("voc", FOUND, {"val": None}, ["train", "train", "test"]),
        ("voc", ["train", "valid", "test"], {"test": "valid"}, ["train", "train", "valid"]),  # not validated on
        ("yolo", ["train", "valid", "test"], {"test": "valid"}, ["train", "train", "valid"]),
        ("labelimg", ["trainval", "train"], {"train": "auto"}, ["trainval", "trainval", "test"]),
        ("labelimg", ["train", "test"], {"train": "auto"}, ["train", "train", "test"]),
        ("labelimg", [".", "test"], {"train": "auto"}, [".", ".", "test"]),
        ("labelimg", ["Train"], {"train": "auto"}, ["trainval", "trainval", "test"]),  # which the reader refuses
        *(("labelimg", [".", name], AUTO | {"train": "auto"}, [".", name, None]) for name in SPLIT_NAMES["val"][::3]),
    ],
)
def test_which_splits_are_used(
    form: str, there: Sequence[str], stated: dict[str, Any], expected: list[str | None], tmp_path: Path
) -> None:
    write_splits(form, tmp_path, *there)
    opened = DatasetOpener(format=CASES[form].format)
    chosen = plan_stages(opened.files, **stages(tmp_path, **stated))
    assert names_of(chosen) == expected
    is_held_out = expected[1] == expected[0]
    shares = {"part", "val_fraction"} if is_held_out else set()
    assert chosen["train"] is not None
    assert chosen["val"] is not None
    assert chosen["train"].keys() == {"splits", "keep_difficult"} | shares
    assert chosen["val"].keys() == {"splits"} | shares
    if is_held_out:
        assert (chosen["train"]["part"], chosen["val"]["part"]) == ("train", "val")
    elif expected[1] == there[1]:
        (record,) = opened(**chosen["val"], class_names=("cat", "dog")).annotations
        assert record.image_id == "b"


def test_a_test_part_and_folds_are_held_out_of_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_splits("voc", tmp_path, "train", "val")
    given = stages(tmp_path, test="auto")
    given["train"]["test_fraction"] = 0.3
    with caplog.at_level(logging.INFO):
        chosen = plan_stages(opener(VOC).files, **given)
    assert caplog.messages == [f"data.val_fraction=0.4 holds nothing out, since there is the split 'val' of {tmp_path}"]
    assert names_of(chosen) == ["train", "val", "train"]
    assert chosen["train"] is not None
    assert chosen["train"]["part"] == "train"
    assert chosen["test"] == {"splits": chosen["train"]["splits"], "part": "test", "test_fraction": 0.3}

    given["train"] |= {"fold": 0, "num_folds": 5}
    chosen = plan_stages(opener(VOC).files, **given)
    assert names_of(chosen) == ["train", "train", "train"]
    for stage, arguments in chosen.items():
        assert arguments is not None
        assert (arguments["part"], arguments["num_folds"], arguments["fold"]) == (stage, 5, 0)

    given = stages(tmp_path)
    given["train"]["val_fraction"] = 0.0
    given["val"]["splits"][0]["split"] = None
    assert plan_stages(opener(VOC).files, **given)["val"] is None


def test_sets_find_their_own_validation_and_test_splits(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_splits("coco", tmp_path / name, "train", "val")
    CASES["coco"].write(tmp_path / "two", "test", ANNOTATED[:1])
    given = stages(tmp_path, train="auto", test="auto")
    given["train"]["sets"] = [{"root": "one"}, {"root": "two", "format": "auto"}]
    given["val"]["sets"] = [{"root": "two"}]
    chosen = plan_stages(opener(COCO).files, **given)
    places = {
        stage: [(Path(split["root"]).name, split["split"]) for split in of["splits"]]
        for stage, of in chosen.items()
        if of
    }
    assert places == {"train": [("one", "train"), ("two", "train")], "val": [("two", "val")], "test": [("two", "test")]}
    assert chosen["train"] is not None
    assert "part" not in chosen["train"]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ([{"root": "one"}, {"rot": "two"}], r"data\.train: entry 2, \{'rot': 'two'\}, has 'rot', .* root, split, f"),
        (["one"], r"data\.train: entry 1, one, has 'one'"),
        ("one", r"data\.train: entry 1, one, has 'one'"),
    ],
)
def test_an_entry_of_a_set_that_is_none_is_named(tmp_path: Path, sets: object, said: str) -> None:
    given = stages(tmp_path)
    given["train"]["sets"] = sets
    with pytest.raises(ConfigurationError, match=said):
        plan_stages(opener(COCO).files, **given)


def test_a_split_of_training_images_is_not_used_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split, images in {"train": IMAGES, "test": IMAGES[:1]}.items():
        CASES["voc"].write(tmp_path / "test", split, images)
    assert names_of(plan_stages(opener(VOC).files, **stages(tmp_path / "test", test="auto")))[2] is None
    assert "1 files of the split 'test' are in another split too" in caplog.text
    assert names_of(plan_stages(opener(VOC).files, **stages(tmp_path / "test")))[2] == "test"

    for split, images in {"trainval": IMAGES[:2], "val": IMAGES[1:2], "test": IMAGES[2:]}.items():
        CASES["voc"].write(tmp_path, split, images)
    chosen = plan_stages(opener(VOC).files, **stages(tmp_path, train="trainval"))
    assert names_of(chosen) == ["trainval", "trainval", "test"]
    CASES["voc"].write(tmp_path, "train", IMAGES[:1])
    assert names_of(plan_stages(opener(VOC).files, **stages(tmp_path))) == FOUND


@pytest.mark.parametrize(
    ("val", "there", "expected"),
    [
        ("../train/images", ("train", "test"), ["train", "train", "test"]),
        ("../valid/images", ("train", "valid", "test"), FOUND),
        ("../valid/images", ("train", "valid"), ["train", "val", None]),
        ("../valid/images", ("train",), ["train", "train", None]),
    ],
)
def test_yolos_file_says_which_folder_a_split_is(
    tmp_path: Path, val: str, there: Sequence[str], expected: list[str | None]
) -> None:
    for split in there:
        put(tmp_path / split / "images/a.jpg", "")
    put(tmp_path / "data.yaml", f"train: ../train/images\nval: {val}\ntest: ../test/images\nnames: [cat]\n")
    assert names_of(plan_stages(opener(YOLO).files, **stages(tmp_path, test="auto"))) == expected


@pytest.mark.parametrize("name", ["voc", "coco", "yolo", "csv"])
def test_every_folder_format_has_the_setting(tmp_path: Path, name: str) -> None:
    write_splits(name, tmp_path, "train", "mine", "test")
    place = [f"data={name}_folder", f"data.root={tmp_path}", "data.class_names=[cat,dog]"]
    module = module_of(*place, "data.val_split=mine")
    assert module.stages.split_names == {"train": ["train"], "val": ["mine"], "test": ["test"]}
    assert [module.dataset(stage).annotations[0].image_id for stage in ("train", "val", "test")] == ["a", "b", "d.v2"]
    if name == "voc":
        assert module_of(*place, "data.val_split=null").stages.split_names["val"] == ["train"]


@pytest.mark.parametrize("layout", ["auto", "voc_folder", "yolo_folder"])
def test_a_split_or_folder_that_is_missing(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DataError, match=r"gone: there is no such folder; set data\.root="):
        module_of(f"data={layout}", f"data.root={tmp_path / 'gone'}").stages.arguments("test")
    write_splits("voc", tmp_path, "train", "val")
    if layout == "voc_folder":
        with pytest.raises(DataError, match=r"no test split: .* data\.test_split=train .* data\.test_fraction"):
            module_of(f"data={layout}", f"data.root={tmp_path}").stages.arguments("test")
