"""The doctor on data sets in which every fault is known."""

import json
import logging
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from helpers import planted
from helpers.commands import output_of, run_command
from helpers.planted import CLEAN, ImageSpec, Thing
from ssd_lightning.assembly import make_net
from ssd_lightning.commands import doctor
from ssd_lightning.config import compose_config
from ssd_lightning.errors import ConfigurationError, DataError, UserError
from ssd_lightning.visualization.health_tables import print_report

FORMATS = ("voc", "coco", "yolo", "csv")
SETTINGS = [
    "experiment=toy_tiny", "image_size=[128,128]", "data.train_split=train", "data.test_split=test",
    "data.val_fraction=0", "data.num_workers=0", "trainer.accelerator=cpu",
]  # fmt: skip


def overrides(form: str, root: Path, *more: str) -> list[str]:
    # `experiment=toy_tiny` says data=toy; what stands on the command line wins.
    return [*SETTINGS, f"data={form}_folder", f"data.root={root}", *more]


@contextmanager
def without_plot() -> Iterator[None]:
    """The plot of the coverage takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssd_lightning.analysis.dataset_check.priors.draw_coverage", lambda *_: None)
        yield


def check_dataset(form: str, root: Path, *more: str) -> dict[str, Any]:
    config = compose_config("doctor", overrides(form, root, "trial_steps=0", "fit=false", *more))
    with without_plot():
        return doctor.check_dataset(config, root)


def check(root: Path, form: str = "voc", images: Sequence[ImageSpec] = CLEAN, *more: str) -> dict[str, Any]:
    planted.write(form, root, images)
    return check_dataset(form, root, *more)


def found(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(group["kind"], item["split"], item["sentence"]) for group in report["issues"] for item in group["items"]]


def of_kind(report: dict[str, Any], kind: str) -> list[str]:
    return [sentence for of, _, sentence in found(report) if of == kind]


def test_a_whole_data_set_has_no_issue(tmp_path: Path) -> None:
    report = check(tmp_path, "coco")
    assert found(report) == []
    assert report["spoils_the_run"] is False
    assert report["images_decoded"] == 9
    assert report["splits"]["train"]["objects"] == 54
    assert report["splits"]["test"]["classes"]["dog"] == {"objects": 9, "difficult": 0, "images": 3}


@pytest.mark.parametrize(("form", "on_error"), [*((form, "raise") for form in FORMATS), ("voc", "skip")])
def test_every_planted_fault_is_found_and_none_is_invented(tmp_path: Path, form: str, on_error: str) -> None:
    images, expected = planted.planted(form)
    planted.write(form, tmp_path, images)
    if form == "yolo":
        (tmp_path / "data.yaml").write_text((tmp_path / "data.yaml").read_text() + "  3: Dogs\n")
    report = check_dataset(form, tmp_path, "data.class_names=[cat,dog,bird,Dogs]", f"data.on_error={on_error}")
    left = list(found(report))
    for kind, split, part in expected:
        matching = [issue for issue in left if issue[:2] == (kind, split) and part in issue[2]]
        assert len(matching) == 1, (kind, split, part, left)
        left.remove(matching[0])
    assert left == []
    assert report["spoils_the_run"] is True  # with on_error=skip for the image in two splits
    severity = {group["kind"]: group["severity"] for group in report["issues"]}
    assert severity["inverted"] == severity["image"] == ("error" if on_error == "raise" else "warning")
    assert (severity["across"], severity["within"], severity["tiny"]) == ("error", "warning", "warning")


def test_priors_that_reach_few_objects_spoil_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tuple(Thing("dog", (x, y, x + 10, y + 10)) for x in (15, 75, 130) for y in (15, 55, 95))
    images = [replace(image, things=small) for image in CLEAN]
    report = check(tmp_path, "voc", images, "fit=true", "loss.matcher.iou_threshold=0.5")
    (sentence,) = of_kind(report, "coverage")
    for part in ("18 of 54 training objects, 33%, have a prior", "the fitted priors", "image_size=[256,256]"):
        assert part in sentence
    (group,) = report["issues"]
    for kind, advice in (("coverage", ""), ("across", ""), ("no_area", " (data.on_error=skip skips")):
        shown = report | {"priors": None, "coverage": None, "issues": [group | {"kind": kind}]}
        print_report(shown, lines=5, directory=tmp_path)
        (*_, last) = capsys.readouterr().out.strip().splitlines()
        assert last.startswith(f"something would spoil the run{advice}")
        assert bool(advice) == ("on_error" in last)


def test_a_list_of_images_that_names_one_twice(tmp_path: Path) -> None:
    names = ["train0", "train1", "train0", "train2", "train0"]
    planted.write("yolo", tmp_path / "yolo", CLEAN)
    (tmp_path / "yolo/train.txt").write_text("".join(f"images/train/{name}.jpg\n" for name in names))
    settings = tmp_path / "yolo/data.yaml"
    settings.write_text(settings.read_text().replace("train: images/train", "train: train.txt"))
    ((kind, split, sentence),) = found(check_dataset("yolo", tmp_path / "yolo"))
    assert (kind, split) == ("repeated", "train")
    assert sentence.startswith(f"{tmp_path}/yolo/images/train/train0.jpg: ")
    assert "3 times" in sentence

    planted.write("voc", tmp_path, CLEAN)
    path = tmp_path / "ImageSets/Main/train.txt"
    path.write_text("".join(f"{name}\n" for name in names))
    report = check_dataset("voc", tmp_path, "data.val_fraction=0.5")  # both parts read the one list
    assert of_kind(report, "repeated") == [f"{path}: names 'train0' 3 times (lines 1, 3, 5); it is read once"]
    assert report["spoils_the_run"] is False


@pytest.mark.parametrize("form", ["coco", "csv", "voc"])
def test_images_that_no_annotation_file_names_are_counted(tmp_path: Path, form: str) -> None:
    planted.write(form, tmp_path, [*CLEAN, ImageSpec("gone", file="missing")])
    (path,) = tmp_path.rglob("train0.*g")
    for number in range(7):
        shutil.copy(path, path.with_stem(f"new{number}"))
    (path.parent / "notes.txt").touch()
    names = ", ".join(f"new{number}{path.suffix}" for number in range(5))
    expected = [] if form == "voc" else [f"{path.parent}: 7 images are not read: {names} and 2 more"]
    assert of_kind(check_dataset(form, tmp_path, "images=1"), "unlisted") == expected


@pytest.mark.parametrize("decoded", ["all", "1"])
def test_boxes_are_measured_by_the_image_where_its_annotation_states_another_size(tmp_path: Path, decoded: str) -> None:
    outside = planted.with_thing("odd", Thing("dog", (20, 20, 30, 130)))  # of 120 px
    report = check(tmp_path, "voc", [*CLEAN, replace(outside, stated_size_px=(60, 80))], f"images={decoded}")
    assert [kind for kind, _, _ in found(report)] == ["image_size", "outside"]
    assert "object 10 'dog' reaches out of the image: ymax is 131" in of_kind(report, "outside")[0]
    assert report["splits"]["train"]["left_out"] == 2


def test_fractions_in_xml_files_are_taken_for_what_they_are(tmp_path: Path) -> None:
    whole = Thing("dog", (0, 0, 160, 120))  # (0, 0, 1, 1) has no area in pixels
    things = tuple(
        replace(thing, written=(x1 / 160, y1 / 120, x2 / 160, y2 / 120))
        for thing in (*planted.SOUND, whole)
        for x1, y1, x2, y2 in [thing.box]
    )
    report = check(tmp_path, "voc", [replace(image, things=things) for image in CLEAN])
    assert len(of_kind(report, "fractions")) == 90
    assert of_kind(report, "no_area") == []


def test_every_stage_is_logged_with_its_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = ["trial_steps=1", "trial_batch_size=2", "augmentation=paper", "auto_augmentation=true", "fit=true"]
    with caplog.at_level(logging.INFO, logger="ssd_lightning"):
        check(tmp_path, "voc", CLEAN, *more)
    lines = [record.getMessage() for record in caplog.records]
    for said in (
        "reading the annotations of train, test",
        "train: 6 images, 54 usable objects; faults of the annotation: 0",
        "test: 3 images, 27 usable objects; faults of the annotation: 0",
        "decoding 9 images",
        "fitting priors to 54 objects",
        "auto_augmentation: the median training box has 32 px in the input, so no expansion",  # as in the training
        "timing steps on cpu: 1, of 2 images each",
    ):
        assert sum(said in line for line in lines) == 1, (said, lines)
    assert len(lines) == 7


def test_class_numbers_off_by_one(tmp_path: Path) -> None:
    planted.write("yolo", tmp_path, CLEAN)
    for path in tmp_path.glob("labels/*/*.txt"):
        lines = [line.split(" ", 1) for line in path.read_text().splitlines()]
        path.write_text("".join(f"{int(label) + 1} {box}\n" for label, box in lines))
    report = check_dataset("yolo", tmp_path)
    train, _ = of_kind(report, "class_numbers")
    assert re.search("one too high.*is of none of the 3 classes", train)
    assert report["spoils_the_run"] is True


def test_pixels_that_count_from_another_number(tmp_path: Path) -> None:
    planted.write_voc_from(0, tmp_path)
    report = check_dataset("voc", tmp_path, "data.xml_offset=1")
    assert "data.xml_offset=0, not 1" in of_kind(report, "pixel_origin")[0]
    assert report["spoils_the_run"] is False


@pytest.mark.parametrize(
    ("form", "kinds"),
    [
        ("voc", {"nothing_left": 2, "missing": 3}),
        ("yolo", {"nothing_left": 2}),  # its images are those that exist, and there are labels without one
    ],
)
def test_a_split_of_which_nothing_is_left(tmp_path: Path, form: str, kinds: dict[str, int]) -> None:
    images = [ImageSpec(f"p{i}", split, file="missing") for i, split in enumerate(["train", "train", "test"])]
    report = check(tmp_path, form, images, f"data.class_names=[{','.join(planted.CLASSES)}]")
    assert {kind: len(of_kind(report, kind)) for kind in kinds} == kinds
    assert report["spoils_the_run"] is True
    assert report["coverage"] is None


def test_annotations_without_any_object(tmp_path: Path) -> None:
    discovered = check(tmp_path, "voc", [replace(image, things=()) for image in CLEAN])
    assert "has a class name; give data.class_names" in of_kind(discovered, "unopened")[0]
    stated = check_dataset("voc", tmp_path, "data.class_names=[cat]")
    assert [sentence.split(":")[0] for sentence in of_kind(stated, "nothing_left")] == ["train"]


@pytest.mark.parametrize(("test", "severity"), [("false", "warning"), ("true", "error")])
def test_a_test_split_without_labels_matters_only_if_it_is_scored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, test: str, severity: str
) -> None:
    planted.write("yolo", tmp_path, CLEAN)
    for path in (tmp_path / "labels/test").iterdir():
        path.unlink()
    report = check_dataset("yolo", tmp_path, f"test={test}")
    (group,) = [group for group in report["issues"] if group["kind"] == "unopened"]
    assert (group["severity"], report["spoils_the_run"]) == (severity, test == "true")
    assert "labels/test/test0.txt" in group["items"][0]["sentence"]
    assert len([line for line in caplog.messages if "test split 'test' has no labels" in line]) == 1


def test_a_split_whose_every_object_is_skipped(tmp_path: Path) -> None:
    planted.write("voc", tmp_path, CLEAN)
    for path in (tmp_path / "Annotations").iterdir():
        path.write_text(path.read_text().replace("<bndbox>", "<difficult>1</difficult><bndbox>"))
    (sentence,) = of_kind(check_dataset("voc", tmp_path, "data.train_difficult=false"), "nothing_left")
    for part in ("train: ", "6 images", "54 crowds or difficult objects are skipped", "data.train_difficult=true"):
        assert part in sentence


def test_a_root_or_training_split_that_is_not_there_is_a_bad_setting(tmp_path: Path) -> None:
    planted.write("voc", tmp_path, CLEAN)
    for bad, said in (("root=nowhere", "there is no such folder"), ("train_split=valley", "no split 'valley'")):
        with pytest.raises(DataError, match=said):
            check_dataset("voc", tmp_path, f"data.{bad}")


def test_a_validation_split_of_its_own_is_examined(tmp_path: Path) -> None:
    report = check(tmp_path, "csv", CLEAN, "data.val_split=test", "data.test_split=null")
    assert {split: of["images"] for split, of in report["splits"].items()} == {"train": 6, "val": 3}
    assert found(report) == []


def test_without_decoding_no_image_is_opened_and_copies_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = planted.planted("csv")
    planted.write("csv", tmp_path, images)
    shutil.copy(tmp_path / "train/train0.jpg", tmp_path / "test/test0.jpg")
    for module in ("data.dataset", "analysis.dataset_check.splits"):
        monkeypatch.delattr(f"ssd_lightning.{module}.read_image")
    report = check_dataset("csv", tmp_path, "decode=false", "trial_steps=1")
    assert report["images_decoded"] == 0
    assert report["trial"] is None
    assert of_kind(report, "image") == []
    assert len(of_kind(report, "inverted")) == 1  # annotations are always all looked at
    (sentence,) = of_kind(report, "across")
    assert f"{tmp_path}/train/train0.jpg" in sentence
    assert f"{tmp_path}/test/test0.jpg" in sentence


@pytest.mark.parametrize(("on_error", "kinds"), [("skip", ["outside"] * 2), ("clip", ["outside", "clipped"])])
def test_boxes_that_reach_out_of_the_image_as_clip_has_them(tmp_path: Path, on_error: str, kinds: list[str]) -> None:
    things = Thing("dog", (100, 20, 300, 60)), Thing("dog", (200, 20, 300, 60))  # of 160 px
    images = [*CLEAN, *(planted.with_thing(f"odd{number}", thing) for number, thing in enumerate(things))]
    report = check(tmp_path, "voc", images, f"data.on_error={on_error}")
    assert report["on_error"] == on_error
    assert [kind for kind, _, _ in found(report)] == kinds
    assert [sentence.endswith("no part of it is inside") for sentence in of_kind(report, "outside")].count(True) == 1
    assert ("data.on_error=clip" in report["issues"][0]["advice"]) == (on_error == "skip")
    assert all(sentence.startswith("train: 1 of ") for sentence in of_kind(report, "clipped"))


def test_the_command_on_a_whole_data_set(tmp_path: Path) -> None:
    planted.write("voc", tmp_path / "set", CLEAN)
    out = output_of(tmp_path, "doctor", *overrides("voc", Path("set"), "hydra.run.dir=out", "trial_steps=1"))
    report = json.loads((tmp_path / "out" / "doctor.json").read_text())
    assert report["spoils_the_run"] is False
    assert report["trial"]["losses"]["expected"]["loss_cls"] == pytest.approx(4 * np.log(4), rel=1e-5)  # three classes
    estimate = report["trial"]["estimate"]
    # 6 images are one batch; twelve epochs
    assert (estimate["measured_batch_size"], estimate["batch_size"], estimate["steps"]) == (8, 16, 12)
    assert estimate["memory_mib"] > 0
    assert "no issue" in out
    assert report["priors"]["command"] in out
    assert (tmp_path / "out" / "coverage.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_on_a_planted_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = [planted.with_thing(name, Thing("dgo", (1, 2, 30, 40))) for name in ("b1", "b2")]
    planted.write("csv", tmp_path / "set", [*CLEAN, *odd, ImageSpec("twin", pixels="train0")])
    more = ["hydra.run.dir=out", "lines=1", "trial_steps=0", "fit=false", "data.class_names=[cat,dog,bird]"]
    with pytest.raises(SystemExit) as end, without_plot():
        run_command(tmp_path, "doctor", *overrides("csv", Path("set"), *more))
    assert end.value.code == 1
    out = capsys.readouterr().out
    assert out.index("ERRORS") < out.index("WARNINGS") < out.index("Images and objects")
    assert "and 1 more in out/doctor.json" in out
    report = json.loads((tmp_path / "out" / "doctor.json").read_text())
    assert len(of_kind(report, "unknown_class")) == 2


def test_settings_of_the_check_are_checked() -> None:
    config = compose_config("doctor", overrides("voc", Path("set")))
    doctor.check_settings(config)
    bad = {"images": 0, "decode": "none", "tiny_px": -1, "lines": -2, "trial_steps": 1.5, "fit": "maybe"}
    for name, value in bad.items():
        with pytest.raises(ConfigurationError, match=f"^{name} is {value!r};"):
            doctor.check_settings(OmegaConf.merge(config, {name: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["ablation=one_level_less", "ablated.levels.count=9"], "9 prior levels cannot be dropped"),
        (["trial_steps=1", "optimizer.weight_decay=abc"], "weight_decay=abc"),
        (["init_from=nowhere.ckpt"], "nowhere.ckpt: there is no such file"),
    ],
)
def test_bad_settings_of_the_run_are_said(tmp_path: Path, more: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(tmp_path, "voc", CLEAN[:1], *more)


@pytest.mark.parametrize("experiment", ["bccd_tiny", None])
def test_fitted_priors_are_a_choice_of_priors(tmp_path: Path, experiment: str | None) -> None:
    planted.write("voc", tmp_path / "set", CLEAN)
    chosen = [f"experiment={experiment}"] if experiment else ["model=tiny_ssd"]
    chosen += ["data=voc_folder", "data.train_split=train", f"data.root={tmp_path / 'set'}"]
    with suppress(SystemExit), without_plot():  # as the issues have it
        run_command(tmp_path, "doctor", *chosen, "hydra.run.dir=out", "trial_steps=0", "trainer.accelerator=cpu")
    report = json.loads((tmp_path / "out" / "doctor.json").read_text())
    program, arguments = (words := shlex.split(report["priors"]["command"]))[:5], words[5:]
    assert program == ["python", "-m", "ssd_lightning.train", "--config-dir", "out"]
    assert not any(word.startswith("trial_steps") for word in arguments)
    # A recipe that has priors of its own needs one argument more.
    assert ("model.levels=${priors.fitted}" in arguments) == (experiment is not None)

    found = [f"hydra.searchpath=[file://{tmp_path / 'out'}]", *arguments, "trial_steps=0", "fit=false"]
    config = compose_config("doctor", found)  # with the settings of a training
    levels = instantiate(config.model.levels, _convert_="all")
    net = make_net(config, 3, pretrained=False)
    assert [replace(level, grid_size=tuple(level.grid_size)) for level in levels] == list(net.levels)
    with without_plot():
        again = doctor.check_dataset(config, tmp_path)
    assert again["coverage"]["reached"] == report["priors"]["coverage"]["reached"] >= report["coverage"]["reached"]
    assert again["coverage"]["mean_iou"] == pytest.approx(report["priors"]["coverage"]["mean_iou"])


def test_a_recipe_that_fits_priors_is_judged_with_the_fitted_ones(tmp_path: Path) -> None:
    rare = planted.with_thing("rare", Thing("axolotl", (10, 10, 50, 50)))
    planted.write("voc", tmp_path, [*CLEAN, rare])
    by_hand, by_itself = (
        check_dataset("voc", tmp_path, "fit=true", f"priors.fit={fit}", f"data.repeat_rare={fit}")
        for fit in ("false", "true")
    )
    assert by_itself["priors"] is None  # nothing is left to choose
    assert by_itself["coverage"]["threshold"] == 0.35  # the matcher's
    assert by_itself["coverage"]["mean_iou"] > by_hand["coverage"]["mean_iou"]
    for report, is_advised in ((by_hand, True), (by_itself, False)):
        (group,) = [group for group in report["issues"] if group["kind"] == "rare_class"]
        assert ("repeat_rare" in group["advice"]) == is_advised


def test_few_images_without_a_recipe_are_pointed_to_finetune(tmp_path: Path) -> None:
    planted.write("voc", tmp_path, CLEAN)
    without_recipe = ["model=tiny_ssd", *overrides("voc", tmp_path, "decode=false", "fit=false")[1:]]
    with without_plot():
        report = doctor.check_dataset(compose_config("doctor", without_recipe), tmp_path)
    (group,) = [group for group in report["issues"] if group["kind"] == "few_images"]
    assert group["advice"] == "start with experiment=finetune"
