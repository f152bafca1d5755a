"""Which splits are trained on, validated on and tested on: what is stated, what is found, what is held out."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from test_formats_contract import ALL, IMAGES, Format, every_format

from helpers.datasets import opener
from ssd_lightning.config import compose_config
from ssd_lightning.data.formats import COCO, VOC, YOLO
from ssd_lightning.data.split_names import SPLIT_NAMES
from ssd_lightning.data.stages import plan_stages
from ssd_lightning.errors import ConfigurationError, DataError

ANNOTATED = tuple(image for image in IMAGES if image.things)
HELD_OUT = {"part": "val", "val_fraction": 0.4}


def stages(root: Path, *, train: str = "train", val: str | None = "auto", test: str | None = "test") -> dict[str, Any]:
    """What `conf/data/layout/folder.yaml` hands over."""
    splits = {stage: [{"root": str(root), "split": split}] for stage, split in locals().items() if stage != "root"}
    return {
        "train": {"splits": splits["train"], "part": "train", "val_fraction": 0.4, "keep_difficult": False},
        "val": {"splits": splits["val"]},
        "test": {"splits": splits["test"]},
    }


def names_of(chosen: dict[str, Any]) -> list[str | None]:
    return [arguments and arguments["splits"][0]["split"] for arguments in chosen.values()]


def write_splits(form: Format, root: Path, *splits: str) -> None:
    root.mkdir(exist_ok=True)
    for split, image in zip(splits, ANNOTATED, strict=False):
        form.write(root, split, [image])


@pytest.mark.parametrize(
    ("form", "name"),
    [*((form, "val") for form in ALL.values()), *((ALL["voc"], name) for name in ("validation", "eval", "dev"))],
    ids=[*ALL, "validation", "eval", "dev"],
)
def test_a_validation_split_is_found_where_there_is_a_test_split_too(tmp_path: Path, form: Format, name: str) -> None:
    write_splits(form, tmp_path, "train", name, "test")

    chosen = plan_stages(form.files, **stages(tmp_path))

    assert names_of(chosen) == ["train", name, "test"]
    assert chosen["train"].keys() == {"splits", "keep_difficult"}  # nothing is held out
    assert chosen["val"].keys() == {"splits"}
    settings = {"class_names": ("cat", "dog"), **dict(form.settings)}
    assert [record.image_id for record in form.dataset(**chosen["val"], **settings).annotations] == ["b"]


@every_format
def test_without_a_test_split_there_is_no_test(tmp_path: Path, form: Format) -> None:
    write_splits(form, tmp_path, "train", "valid")
    for test in ("auto", None):
        chosen = plan_stages(form.files, **stages(tmp_path, test=test))
        assert names_of(chosen) == ["train", "valid", None]
        assert "part" not in chosen["train"]
    for test in ("test", "valid", "auto", None):
        stated = plan_stages(form.files, **stages(tmp_path, val="valid", test=test))
        assert names_of(stated) == ["train", "valid", None if test == "auto" else test]
        assert "part" not in stated["train"]
        assert "part" not in stated["val"]


def test_no_validation_split_of_its_own_holds_a_share_of_training_out(tmp_path: Path) -> None:
    write_splits(ALL["voc"], tmp_path, "train", "val", "test")
    chosen = plan_stages(opener(VOC).files, **stages(tmp_path, val=None))
    assert names_of(chosen) == ["train", "train", "test"]
    assert (chosen["train"]["part"], chosen["val"]["part"]) == ("train", "val")
    config = compose_config("train", ["data=voc_folder", f"data.root={tmp_path}", "data.val_split=null"])
    module = instantiate(config.data.module, _convert_="all")
    assert module.stages.split_names["val"] == ["train"]


@pytest.mark.parametrize("form", [ALL[name] for name in ("voc", "yolo", "csv")])
def test_the_split_that_is_tested_on_is_not_validated_on(tmp_path: Path, form: Format) -> None:
    write_splits(form, tmp_path, "train", "valid", "test")
    chosen = plan_stages(form.files, **stages(tmp_path, test="valid"))
    assert names_of(chosen) == ["train", "train", "valid"]


def test_a_test_part_and_folds_are_held_out_of_training(tmp_path: Path) -> None:
    write_splits(ALL["voc"], tmp_path, "train", "val")
    given = stages(tmp_path, test="auto")
    given["train"]["test_fraction"] = 0.3
    chosen = plan_stages(opener(VOC).files, **given)
    assert names_of(chosen) == ["train", "val", "train"]
    assert chosen["train"]["part"] == "train"
    assert chosen["test"] == {"splits": chosen["train"]["splits"], "part": "test", "test_fraction": 0.3}

    given["train"] |= {"fold": 0, "num_folds": 5}
    chosen = plan_stages(opener(VOC).files, **given)
    assert names_of(chosen) == ["train", "train", "train"]
    assert [chosen[stage]["part"] for stage in ("train", "val", "test")] == ["train", "val", "test"]
    assert all(chosen[stage]["num_folds"] == 5 and chosen[stage]["fold"] == 0 for stage in chosen)


def test_shares_beside_splits_of_their_own_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_splits(ALL["voc"], tmp_path, "train", "val")
    given = stages(tmp_path, test="auto")
    given["train"]["test_fraction"] = 0.3
    with caplog.at_level(logging.INFO):
        plan_stages(opener(VOC).files, **given)
    assert caplog.messages == [f"data.val_fraction=0.4 holds nothing out, since there is the split 'val' of {tmp_path}"]


def test_sets_find_their_own_validation_and_test_splits(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_splits(ALL["coco"], tmp_path / name, "train", "val")
    ALL["coco"].write(tmp_path / "two", "test", ANNOTATED[:1])
    given = stages(tmp_path, train="auto", test="auto")
    given["train"]["sets"] = [{"root": "one"}, {"root": "two", "format": "auto"}]
    given["val"]["sets"] = [{"root": "two"}]
    chosen = plan_stages(opener(COCO).files, **given)
    places = {
        stage: [(Path(split["root"]).name, split["split"]) for split in of["splits"]] for stage, of in chosen.items()
    }
    assert places == {"train": [("one", "train"), ("two", "train")], "val": [("two", "val")], "test": [("two", "test")]}
    assert "part" not in chosen["train"]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (
            [{"root": "one"}, {"rot": "two"}],
            r"data\.train: entry 2, \{'rot': 'two'\}, has 'rot', .* root, split, f",
        ),
        (["one"], r"data\.train: entry 1, one, has 'one'"),
        ("one", r"data\.train: entry 1, one, has 'one'"),
    ],
)
def test_an_entry_of_a_set_that_is_none_is_named(tmp_path: Path, sets: object, said: str) -> None:
    given = stages(tmp_path)
    given["train"]["sets"] = sets
    with pytest.raises(ConfigurationError, match=said):
        plan_stages(opener(COCO).files, **given)


def test_a_test_split_of_training_images_is_not_used_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split, images in {"train": IMAGES, "test": IMAGES[:1]}.items():
        ALL["voc"].write(tmp_path, split, images)
    assert names_of(plan_stages(opener(VOC).files, **stages(tmp_path, test="auto")))[2] is None
    assert "1 files of the split 'test' are in another split too" in caplog.text
    assert names_of(plan_stages(opener(VOC).files, **stages(tmp_path)))[2] == "test"


def test_nothing_is_held_out_where_the_share_is_zero(tmp_path: Path) -> None:
    given = stages(tmp_path)
    given["train"]["val_fraction"] = 0.0
    assert plan_stages(opener(VOC).files, **given)["val"] is None


def test_lists_of_which_one_holds_the_other_are_not_validation(tmp_path: Path) -> None:
    for split, images in {"trainval": IMAGES[:2], "val": IMAGES[1:2], "test": IMAGES[2:]}.items():
        ALL["voc"].write(tmp_path, split, images)
    assert names_of(plan_stages(opener(VOC).files, **stages(tmp_path, train="trainval"))) == [
        "trainval",
        "trainval",
        "test",
    ]
    ALL["voc"].write(tmp_path, "train", IMAGES[:1])
    assert names_of(plan_stages(opener(VOC).files, **stages(tmp_path))) == ["train", "val", "test"]


@pytest.mark.parametrize(("val", "expected"), [("../train/images", "train"), ("../valid/images", "val")])
def test_yolos_file_says_which_folder_validation_is(tmp_path: Path, val: str, expected: str) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / split / "images").mkdir(parents=True)
        (tmp_path / split / "images/a.jpg").touch()
    (tmp_path / "valid").rename(tmp_path / ("valid" if expected == "val" else "elsewhere"))
    (tmp_path / "data.yaml").write_text(f"train: ../train/images\nval: {val}\ntest: ../test/images\nnames: [cat]\n")
    assert names_of(plan_stages(opener(YOLO).files, **stages(tmp_path))) == ["train", expected, "test"]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (("train", "valid", "test"), ["train", "val", "test"]),
        (("train", "valid"), ["train", "val", None]),
        (("train",), ["train", "train", None]),
    ],
)
def test_splits_that_the_file_states_may_be_missing(tmp_path: Path, there: Sequence[str], expected: list[str]) -> None:
    for split in there:
        (tmp_path / split / "images").mkdir(parents=True)
        (tmp_path / split / "images/a.jpg").touch()
    lines = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cat]\n"
    (tmp_path / "data.yaml").write_text(lines)
    assert names_of(plan_stages(opener(YOLO).files, **stages(tmp_path, test="auto"))) == expected


@pytest.mark.parametrize(
    ("there", "expected"),
    [(("trainval", "train"), "trainval"), (("train", "test"), "train"), ((".", "test"), "."), (("Train",), "trainval")],
)
def test_the_training_split_of_voc_is_a_usual_one_or_the_whole_folder(
    tmp_path: Path, there: Sequence[str], expected: str
) -> None:
    write_splits(ALL["labelimg"], tmp_path, *there)
    assert names_of(plan_stages(opener(VOC).files, **stages(tmp_path, train="auto")))[0] == expected


@pytest.mark.parametrize("name", SPLIT_NAMES["val"])
def test_a_folder_with_a_name_for_validation_is_not_part_of_the_whole_folder(tmp_path: Path, name: str) -> None:
    write_splits(ALL["labelimg"], tmp_path, ".", name)
    chosen = plan_stages(opener(VOC).files, **stages(tmp_path, train="auto", test="auto"))
    assert names_of(chosen) == [".", name, None]


@pytest.mark.parametrize("name", ["voc", "coco", "yolo", "csv"])
def test_every_folder_format_has_the_setting(tmp_path: Path, name: str) -> None:
    write_splits(ALL[name], tmp_path, "train", "mine", "test")
    overrides = [f"data={name}_folder", f"data.root={tmp_path}", "data.val_split=mine"]
    config = compose_config("train", [*overrides, "data.class_names=[cat,dog]"])
    module = instantiate(config.data.module, _convert_="all")
    assert module.stages.split_names == {"train": ["train"], "val": ["mine"], "test": ["test"]}
    assert [module.dataset(stage).annotations[0].image_id for stage in ("train", "val", "test")] == ["a", "b", "d.v2"]


def test_without_a_test_split_the_error_says_what_can_be_scored(tmp_path: Path) -> None:
    write_splits(ALL["voc"], tmp_path, "train", "val")
    data = instantiate(
        compose_config("train", ["data=voc_folder", f"data.root={tmp_path}"]).data.module, _convert_="all"
    )
    with pytest.raises(DataError, match=r"no test split: split=val .* data\.test_fraction"):
        data.stages.arguments("test")


@pytest.mark.parametrize("layout", ["auto", "voc_folder", "yolo_folder"])
def test_a_folder_that_is_missing_is_no_missing_split(tmp_path: Path, layout: str) -> None:
    overrides = [f"data={layout}", f"data.root={tmp_path / 'gone'}"]
    data = instantiate(compose_config("train", overrides).data.module, _convert_="all")
    with pytest.raises(DataError, match=r"gone: there is no such folder; set data\.root="):
        data.stages.arguments("test")
