"""Which splits are trained on, validated on and tested on: what is stated, what is found, what is held out."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate

from helpers.annotation_tools import CASES, IMAGES, Case, put, with_cases
from helpers.datasets import opener
from ssd_lightning.config import compose_config
from ssd_lightning.data.detection_data import DetectionData
from ssd_lightning.data.formats import YOLO
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.data.stages import plan_stages
from ssd_lightning.errors import ConfigurationError, DataError

ANNOTATED = tuple(image for image in IMAGES if image.things)
FOUND = "train val test"


def stages(root: Path | str, *, train: str = "train", val: str | None = "auto", test: str | None = "test") -> Any:
    """What `conf/data/layout/folder.yaml` hands over."""
    splits = {stage: [{"root": str(root), "split": split}] for stage, split in locals().items() if stage != "root"}
    return {
        "train": {"splits": splits["train"], "part": "train", "val_fraction": 0.4, "keep_difficult": False},
        "val": {"splits": splits["val"]},
        "test": {"splits": splits["test"]},
    }


def chosen_of(there: str | Mapping[str, str], given: Any = None, **stated: Any) -> dict[str, Any]:
    """Choose among splits with one file each, or with a file for each letter."""
    files = {name: {name} for name in there.split()} if isinstance(there, str) else there
    return plan_stages(lambda place: frozenset(files.get(place["split"], ())), **given or stages("root", **stated))


def names_of(chosen: Mapping[str, Any]) -> str:
    return " ".join(arguments["splits"][0]["split"] if arguments else "-" for arguments in chosen.values())


def write_splits(case: Case, root: Path, *splits: str) -> None:
    root.mkdir(exist_ok=True)
    for split, image in zip(splits, ANNOTATED, strict=False):
        case.write(root, split, [image])


def module_of(*overrides: str) -> DetectionData:
    return instantiate(compose_config("train", list(overrides)).data.module, _convert_="all")


@pytest.mark.parametrize(
    ("there", "stated", "expected"),
    [
        (FOUND, {}, FOUND),
        ("train dev test", {}, "train dev test"),
        ("train valid", {"test": "auto"}, "train valid -"),
        ("train valid", {"test": None}, "train valid -"),
        ("train valid", {"val": "valid", "test": "valid"}, "train valid valid"),
        (FOUND, {"val": None}, "train train test"),
        ("train valid test", {"test": "valid"}, "train train valid"),  # not validated on
        ("trainval train", {"train": "auto"}, "trainval trainval test"),
        ("train test", {"train": "auto"}, "train train test"),
        (". test", {"train": "auto"}, ". . test"),
        (". eval", {"train": "auto", "test": "auto"}, ". eval -"),
        ("Train", {"train": "auto"}, "trainval trainval test"),  # which the reader refuses
    ],
)
def test_which_splits_are_used(there: str, stated: dict[str, Any], expected: str) -> None:
    chosen = chosen_of(there, **stated)
    assert names_of(chosen) == expected
    train, val, _ = expected.split()
    shares = {"part", "val_fraction"} if train == val else set()
    assert chosen["train"].keys() == {"splits", "keep_difficult"} | shares
    assert chosen["val"].keys() == {"splits"} | shares
    if train == val:
        assert (chosen["train"]["part"], chosen["val"]["part"]) == ("train", "val")


@with_cases("labelimg", "coco", "yolo list", "openimages", "bananas")
def test_the_splits_of_a_format_are_found(case: Case, tmp_path: Path) -> None:
    write_splits(case, tmp_path, *FOUND.split())
    opened = DatasetOpener(format=case.format)
    chosen = plan_stages(opened.files, **stages(tmp_path, test="auto"))
    assert names_of(chosen) == FOUND
    (record,) = opened(**chosen["val"], class_names=("cat", "dog")).annotations
    assert record.image_id == "b"


def test_a_test_part_and_folds_are_held_out_of_training(caplog: pytest.LogCaptureFixture) -> None:
    given = stages("root", test="auto")
    given["train"]["test_fraction"] = 0.3
    with caplog.at_level(logging.INFO):
        chosen = chosen_of("train val", given)
    assert caplog.messages == ["data.val_fraction=0.4 holds nothing out, since there is the split 'val' of root"]
    assert names_of(chosen) == "train val train"
    assert chosen["train"]["part"] == "train"
    assert chosen["test"] == {"splits": chosen["train"]["splits"], "part": "test", "test_fraction": 0.3}

    given["train"] |= {"fold": 0, "num_folds": 5}
    chosen = chosen_of("train val", given)
    assert names_of(chosen) == "train train train"
    for stage, arguments in chosen.items():
        assert (arguments["part"], arguments["num_folds"], arguments["fold"]) == (stage, 5, 0)

    given = stages("root", val=None)
    given["train"]["val_fraction"] = 0.0
    assert chosen_of("train val", given)["val"] is None


@pytest.mark.parametrize("wrong", [{"val_fraction": 7}, {"test_fraction": -1}, {"fold": 5, "num_folds": 5}])
def test_wrong_shares_are_refused_where_the_files_have_all_splits_too(wrong: dict[str, Any]) -> None:
    given = stages("root", test="auto")
    given["train"] |= wrong
    with pytest.raises(ConfigurationError, match=f"data.{next(iter(wrong))} is {next(iter(wrong.values()))}; it must"):
        chosen_of(FOUND, given)


def test_sets_find_their_own_validation_and_test_splits() -> None:
    given = stages("root", train="auto", test="auto")
    given["train"]["sets"] = [{"root": "one"}, {"root": "two", "format": "auto"}]
    given["val"]["sets"] = [{"root": "two"}]
    there = {("one", "train"), ("one", "val"), ("two", "train"), ("two", "val"), ("two", "test")}

    def place_of(split: Mapping[str, Any]) -> tuple[str, str]:
        return Path(split["root"]).name, split["split"]

    chosen = plan_stages(lambda split: frozenset({place_of(split)} & there), **given)
    places = [[place_of(split) for split in of["splits"]] for of in chosen.values()]
    assert places == [[("one", "train"), ("two", "train")], [("two", "val")], [("two", "test")]]
    assert chosen["train"]["splits"][1]["format"] == "auto"
    assert "part" not in chosen["train"]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ([{"root": "one"}, {"rot": "two"}], r"data\.train: entry 2, \{'rot': 'two'\}, has 'rot', .* root, split, f"),
        (["one"], r"data\.train: entry 1, one, has 'one'"),
        ("one", r"data\.train: entry 1, one, has 'one'"),
        (5, r"data\.train: entry 1, 5, has '5'"),
        ([{"root": 2024}], r"data\.train: entry 1, \{'root': 2024\}, has the root 2024; it must be text"),
    ],
)
def test_an_entry_of_a_set_that_is_none_is_named(sets: object, said: str) -> None:
    given = stages("root")
    given["train"]["sets"] = sets
    with pytest.raises(ConfigurationError, match=said):
        chosen_of("train", given)


def test_a_split_of_training_images_is_not_used_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    there = {"train": "abcd", "test": "a"}
    assert names_of(chosen_of(there, test="auto")) == "train train -"
    assert "1 files of the split 'test' are in another split too" in caplog.text
    assert names_of(chosen_of(there)) == "train train test"  # as stated
    there = {"trainval": "ab", "val": "b", "test": "cd"}
    assert names_of(chosen_of(there, train="trainval")) == "trainval trainval test"
    assert names_of(chosen_of(there | {"train": "a"})) == FOUND


@pytest.mark.parametrize(
    ("val", "there", "expected"),
    [
        ("../train/images", ("train", "test"), "train train test"),
        ("../valid/images", ("train", "valid", "test"), FOUND),
        ("../valid/images", ("train",), "train train -"),
    ],
)
def test_yolos_file_says_which_folder_a_split_is(tmp_path: Path, val: str, there: Sequence[str], expected: str) -> None:
    for split in there:
        put(tmp_path / split / "images/a.jpg", "")
    put(tmp_path / "data.yaml", f"train: ../train/images\nval: {val}\ntest: ../test/images\nnames: [cat]\n")
    assert names_of(plan_stages(opener(YOLO).files, **stages(tmp_path, test="auto"))) == expected


@pytest.mark.parametrize("name", ["voc", "coco", "yolo", "csv"])
def test_every_folder_format_has_the_setting(tmp_path: Path, name: str) -> None:
    write_splits(CASES[name], tmp_path, "train", "mine", "test")
    place = [f"data={name}_folder", f"data.root={tmp_path}", "data.class_names=[cat,dog]"]
    module = module_of(*place, "data.val_split=mine")
    assert module.stages.split_names == {"train": ["train"], "val": ["mine"], "test": ["test"]}
    assert [module.dataset(stage).annotations[0].image_id for stage in ("train", "val", "test")] == ["a", "b", "d.v2"]
    if name == "voc":
        assert module_of(*place, "data.val_split=null").stages.split_names["val"] == ["train"]


@pytest.mark.parametrize("layout", ["auto", "voc_folder"])
def test_a_split_or_folder_that_is_missing(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DataError, match=r"gone: there is no such folder; set data\.root="):
        module_of(f"data={layout}", f"data.root={tmp_path / 'gone'}").stages.arguments("test")
    write_splits(CASES["voc"], tmp_path, "train", "val")
    if layout == "voc_folder":
        with pytest.raises(DataError, match=r"no test split: .* data\.test_split=train .* data\.test_fraction"):
            module_of(f"data={layout}", f"data.root={tmp_path}").stages.arguments("test")
