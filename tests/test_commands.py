"""The commands as a user runs them, at a small size, in one process."""

import csv
import json
import re
import shutil
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from helpers.annotation_tools import Spec, Thing, make, put, write_voc
from helpers.commands import SMALL, TOY, WHOLE, output_of, refused, run_command
from helpers.datasets import open_voc
from helpers.prediction_media import write_video
from ssd_lightning import assembly, auto_settings, checks, train
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.pr_curves import mean_ap, pr_curves
from ssd_lightning.commands import evaluate, predict
from ssd_lightning.config import compose_config
from ssd_lightning.data.images import read_image
from ssd_lightning.data.toy import TOY_CLASSES
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference import frames
from ssd_lightning.inference.checkpoints import find_checkpoint
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.video import Video
from ssd_lightning.reporting.run import read_run

EVALUATE = ["evaluate", "checkpoint=run", "data=toy", *TOY, "device=cpu"]
CLASSES = sorted(TOY_CLASSES)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def rows(run: Path, column: str) -> list[dict[str, str]]:
    """Rows of the log that have a value in a column."""
    with (run / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row[column]]


def load(checkpoint: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    return loaded


def draw_grey(path: Path) -> None:
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a finished run in `run/`, with the toy set in `datasets/toy`."""
    directory = tmp_path_factory.mktemp("trained")
    overrides = ["test=true", "logger=[csv,tensorboard]", "trainer.profiler=simple"]
    run_command(directory, "train", *WHOLE, "hydra.run.dir=run", *overrides)
    return directory


def test_a_run_logs_every_step_and_validation_and_leaves_a_page_and_images(trained: Path) -> None:
    run = trained / "run"
    for name in ("val/map", "val/map_50", "val/map_11point", "val/map_area", "val/loss_box", "val/loss_cls"):
        assert len(rows(run, name)) == 2, name
    steps = rows(run, "loss")  # of so short a run each is logged
    assert [row["step"] for row in steps] == ["0", "1", "2", "3", "4", "5"]
    assert all(float(row["lr"]) > 0 and float(row["train/loss_box"]) > 0 for row in steps)
    assert [row["step"] for row in rows(run, "speed/images_per_s")] == ["1", "2", "3", "4", "5"]
    assert {"val/map_11point", "test/map_11point"} <= read(run / "result.json")["scores"].keys()
    for left in ("tensorboard/events*", "report.html", "dashboard/images/*", "fit-profile.txt"):
        assert list(run.glob(left)), left


def test_evaluate_scores_every_image_as_the_test_inside_training_did_and_draws(trained: Path) -> None:
    outputs = ["output=scores.json", "record=new/test.npz", "visualizations=drawn", "num_visualizations=3"]
    assert "record:     new/test.npz" in output_of(trained, *EVALUATE, *outputs)
    scores = read(trained / "scores.json")
    assert (scores["images"], sorted(scores["ap_area"])) == (7, CLASSES)
    assert scores["map_area"] == pytest.approx(float(rows(trained / "run", "test/map_area")[-1]["test/map_area"]))
    assert (trained / "drawn" / "overview.jpg").is_file()
    assert len(list((trained / "drawn").glob("test_*.jpg"))) == 3
    inside, again = (EvaluationRecord.load(trained / name) for name in ("run/evaluations/test.npz", "new/test.npz"))
    assert (inside.split, inside.image_ids, inside.class_names) == (again.split, again.image_ids, again.class_names)
    assert mean_ap(pr_curves(inside)) == pytest.approx(mean_ap(pr_curves(again)), abs=1e-6)
    assert torch.equal(inside.objects.boxes, again.objects.boxes)
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in again.image_paths)
    assert len(again.detections.scores) > 7
    assert not list(trained.glob("*.log"))


def test_evaluate_scores_with_other_settings_of_the_post_processing(trained: Path) -> None:
    two = ["postprocess.max_detections=2", "+postprocess.variances=[.1,.1]"]
    for settings, detections in ((two, 14), (["postprocess.score_threshold=1"], 0)):
        run_command(trained, *EVALUATE, *settings, "record=other.npz")
        assert len(EvaluationRecord.load(trained / "other.npz").detections.scores) == detections


def test_evaluate_says_that_it_scores_the_training_images(trained: Path) -> None:
    overrides = ["checkpoint=run", "data=voc_folder", "data.root=datasets/toy", "device=cpu"]
    for split, is_said in (("train", True), ("test", False)):
        text = "images of the test split are in the training split too: scores on them are too high"
        assert (text in output_of(trained, "evaluate", *overrides, f"data.test_split={split}")) == is_said


def test_drawings_of_images_of_one_name_in_several_folders_stay_apart(trained: Path, tmp_path: Path) -> None:
    lines = ["image,label,xmin,ymin,xmax,ymax"]
    for name in ("cam1/f1.jpg", "cam2/f1.jpg", "overview.jpg"):
        path = tmp_path / "test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(trained / "datasets/toy/JPEGImages/test_00000.jpg", path)
        lines.append(f"{name},disk,1,2,30,40")
    (tmp_path / "test.csv").write_text("\n".join(lines))
    data = ["data=csv_folder", "data.root=.", "data.num_workers=0", "visualizations=drawn"]
    run_command(tmp_path, "evaluate", f"checkpoint={trained / 'run'}", *data)
    drawn = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert drawn == {"f1.jpg", "f1_2.jpg", "overview_2.jpg", "overview.jpg"}


def test_predict_writes_images_and_json_also_in_tiles(trained: Path) -> None:
    overrides = ["source=datasets/toy/JPEGImages/test_0000*.jpg", "score_threshold=0.0", "max_detections=5"]
    tiles = ["tiles=48", "overlap=0.3", "batch_size=3"]
    for output, more in (("seen", []), ("tiled", tiles)):
        run_command(trained, "predict", "checkpoint=run", *overrides, *more, f"output={output}")
    seen, tiled = (read(trained / output / "predictions.json") for output in ("seen", "tiled"))
    assert seen.keys() == tiled.keys()
    assert len(seen["images"]) == 7
    for image, other in zip(seen["images"], tiled["images"], strict=True):
        assert Image.open(trained / "seen" / image["drawn"]).size == (image["width"], image["height"]) == (96, 96)
        assert (image.keys(), image["file"]) == (other.keys(), other["file"])
        assert image["detections"] != other["detections"]
        for found in image["detections"]:
            x1, y1, x2, y2 = found["box_xyxy_px"]
            assert 0 <= x1 <= x2 <= 96
            assert 0 <= y1 <= y2 <= 96
            assert found["class"] in seen["classes"]
    assert not list(trained.glob("*.log"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tiles", 16), ("overlap", 1.5), ("whole_image", 3), ("on_error", "ignore"), ("frame_stride", 0),
        ("score_threshold", 40), ("recursive", "maybe"), ("classes", []),
    ],
)  # fmt: skip
def test_predict_names_a_wrong_setting(name: str, value: object) -> None:
    config: Any = OmegaConf.merge(compose_config("predict", ["checkpoint=x", "source=y", "tiles=640"]), {name: value})
    with pytest.raises(ConfigurationError, match=f"^{name} is '?{re.escape(str(value))}'?[;,]"):
        predict.check_settings(config)


@pytest.mark.parametrize("overrides", [[], ["on_error=skip", "save=[json,json]"]])
def test_predict_lists_what_it_leaves_out(trained: Path, overrides: list[str]) -> None:
    folder = trained / "mixed"
    folder.mkdir(exist_ok=True)
    draw_grey(folder / "good.png")
    (folder / "bad.jpg").write_text("<html>not found</html>")
    printed = output_of(trained, "predict", "checkpoint=run", "source=mixed", "output=out", *overrides)
    report = read(trained / "out" / "predictions.json")
    assert [Path(image["file"]).name for image in report["images"]] == ["good.png"]
    assert [image["drawn"] for image in report["images"]] == [None if overrides else "good.jpg"]
    assert "bad.jpg" in report["skipped"][0]
    assert "skipped 1 of 2 sources:\n  mixed/bad.jpg: " in printed
    assert " in 1 image: json" in printed


def test_predict_without_a_detection_tells_the_highest_score(trained: Path) -> None:
    predict = ["predict", "checkpoint=run", "source=datasets/toy/JPEGImages/test_00000.jpg"]
    run_command(trained, *predict, "save=[csv]", "output=low", "score_threshold=0")
    with (trained / "low" / "predictions.csv").open() as file:
        highest = max(float(row["score"]) for row in csv.DictReader(file))
    printed = output_of(trained, *predict, "save=[]", "score_threshold=1")
    assert f"no score reaches score_threshold=1: the highest is {highest:.2g}" in printed


def test_predict_of_nothing_but_bad_images_fails(
    trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    overrides = [f"checkpoint={trained / 'run'}", "save=[images,json,csv,coco,voc]", "output=none"]
    for source, answer in (
        (["source=."], "error: none of the 2 sources can be read"),
        (["source=a.jpg"], "a.jpg: the file is empty"),
        (["source=.", "on_error=raise"], "a.jpg: the file is empty"),
    ):
        assert answer in refused(capsys, tmp_path, "predict", *overrides, *source)
    assert not (tmp_path / "none").exists()  # nothing that looks like results of no image


def test_predict_a_video(trained: Path) -> None:
    """Three of six frames give three records and annotated frames; each record is what the frame alone gives."""
    images = sorted((trained / "datasets/toy/JPEGImages").glob("t*.jpg"))[:6]
    write_video(trained / "clip.mp4", [read_image(path) for path in images])
    run_command(trained, "predict", "checkpoint=run", "source=clip.mp4", "score_threshold=0.1", "batch_size=2",
        "device=cpu", "frame_stride=2", "max_frames=3", "classes=[ring,disk]", "max_detections=9", "iou_threshold=0.3",
        "output=film", "save=[images,json,voc]",
    )  # fmt: skip
    records = read(trained / "film" / "predictions.json")["images"]
    assert [(record["frame"], record["drawn"]) for record in records] == [(index, "clip.mp4") for index in (0, 2, 4)]
    assert sum(len(record["detections"]) for record in records) > 0
    clip, annotated = (list(Video(trained / path).frames()) for path in ("clip.mp4", "film/clip.mp4"))
    assert len(annotated) == 3
    detector = Detector.load(trained / "run")
    detector.use_postprocess(iou_threshold=0.3, max_detections=9)
    for record, (_, frame) in zip(records, clip[::2], strict=True):
        alone = detector(frame).select(0.1, ["ring", "disk"]).as_record()
        # Not in the order of scores: other batches change their last bits. Boxes are rounded to 0.01 pixels.
        one, other = (
            sorted((found["class"], *found["box_xyxy_px"], found["score"]) for found in each["detections"])
            for each in (record, alone)
        )
        assert [*chain(*one)] == pytest.approx([*chain(*other)], abs=0.02)
    data = open_voc(splits=[{"root": str(trained / "film/voc"), "split": "trainval"}], class_names=None)
    assert [len(record.labels) for record in data.annotations] == [len(record["detections"]) for record in records]


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (["classes=[rnig]"], "classes: the detector does not know 'rnig'; the nearest is 'ring'"),
        (["save=[jsn]"], "save is 'jsn'; it can be images, json, csv, coco or voc"),
        (["iou_threshold=2"], "postprocess.iou_threshold is 2"),
        (["output=film.mp4"], "output=film.mp4: cannot write there"),
        (["checkpoint=film.mp4"], "film.mp4"),
        (["source=*.png"], "source=*.png"),
        (["source=good.jpg", "output=."], "would replace the image good.jpg"),
    ],
)
def test_what_predict_cannot_do(
    trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, overrides: list[str], answer: str
) -> None:
    draw_grey(tmp_path / "good.jpg")
    (tmp_path / "film.mp4").write_bytes(b"no film")
    before = (tmp_path / "good.jpg").read_bytes()
    usual = [f"checkpoint={trained / 'run'}", "source=good.*"]
    assert answer in refused(capsys, tmp_path, "predict", *usual, *overrides)
    assert (tmp_path / "good.jpg").read_bytes() == before


def test_predict_keeps_what_it_has_where_it_is_interrupted(
    trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("a.png", "b.png"):
        draw_grey(tmp_path / name)

    def read_or_interrupt(path: Path) -> np.ndarray:
        if path.name == "b.png":
            raise KeyboardInterrupt
        return read_image(path)

    monkeypatch.setattr(frames, "read_image", read_or_interrupt)
    with pytest.raises(SystemExit) as end:
        run_command(tmp_path, "predict", f"checkpoint={trained / 'run'}", "source=.", "batch_size=1", "output=out")
    assert end.value.code == 130
    (image,) = read(tmp_path / "out" / "predictions.json")["images"]
    assert Path(image["file"]).name == "a.png"


def test_a_run_that_starts_from_weights_goes_on_from_its_own(trained: Path) -> None:
    """As every job of a sweep does."""
    overrides = [*SMALL, "init_from=run", "resume=auto", "hydra.run.dir=from_it", "logger=none"]
    for start in ("run", "from_it/checkpoints/last.ckpt"):
        told = output_of(trained, "train", *overrides)
        assert re.search(rf"the network starts from the weights of \S*{start};", told)
        assert ("reinitialised" in told) == (start == "run")
        (trained / "from_it" / "result.json").unlink()  # as if it had been killed before its end


def test_a_run_is_not_replaced_by_another_in_its_directory(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (trained / "run").rglob("*") if path.is_file()}

    before = contents()
    said = refused(capsys, trained, "train", *SMALL, "hydra.run.dir=run", "optimizer.lr=0.1")
    assert said.startswith("error: run already holds a run")
    assert contents() == before


def test_a_run_that_was_killed_before_its_result_only_writes_that(trained: Path) -> None:
    left = trained / "killed"
    shutil.copytree(trained / "run", left)
    *logged, _ = (left / "metrics.csv").read_text().splitlines()  # but for the test, which is not asked for again
    result = read(left / "result.json")
    (left / "result.json").unlink()
    assert "validation images" in output_of(trained, "train", *SMALL, "hydra.run.dir=killed", "resume=auto")
    assert (left / "metrics.csv").read_text().splitlines() == logged
    validated = {name: score for name, score in result["scores"].items() if name.startswith("val/")}
    assert read(left / "result.json")["scores"].items() >= validated.items()


def test_a_run_ends_when_its_budget_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by half a second whenever it is read."""
    readings = count(step=0.5)
    monkeypatch.setattr(assembly, "monotonic", lambda: next(readings))
    monkeypatch.setattr(train, "command_start", lambda *programs: 0.0)
    overrides = [item for item in SMALL if not item.startswith(("trainer.check_val", "trainer.max_epochs"))]
    monkeypatch.setattr(checks, "LOWER_IS_BETTER", ())  # the highest loss is an early one
    overrides += ["callbacks.best.monitor=val/loss_cls", "test=true"]
    run_command(tmp_path, "train", *overrides, "budget=10s", "hydra.run.dir=run", "logger=none")
    record = read(tmp_path / "run" / "run.json")["budget"]
    assert record["seconds"] == 10
    assert 8 < record["used_seconds"] < 12
    best, last = (load(tmp_path / "run" / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
    kept = last["callbacks"]["BudgetCallback"]
    assert best["global_step"] < last["global_step"]  # what the test restores is not recorded
    assert record["steps"] == kept["steps"] == last["global_step"] > 6
    assert record["images"] == kept["images"] == 8 * record["steps"]
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] < 1e-3  # of .005: the schedule has come to its end


FEW_STEPS = [*SMALL, "trainer.max_epochs=1", "trainer.limit_train_batches=1", "logger=none", "priors=auto"]


def levels_in(run: Path) -> list[dict]:
    levels: list[dict] = load(run / "checkpoints" / "last.ckpt")["detector"]["network"]["levels"]
    return levels


def test_a_run_without_validation_keeps_its_last_weights_and_its_fitted_priors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    overrides = [*FEW_STEPS, "trainer.check_val_every_n_epoch=5", "hydra.run.dir=run"]
    run_command(tmp_path, "train", *overrides)
    told, summary = capsys.readouterr()
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert "scores:     none, since nothing was validated" in summary
    levels, config = levels_in(run), OmegaConf.load(run / "config.yaml")
    assert "training boxes reach IoU .5 with a fitted prior" in told
    assert OmegaConf.to_container(config.model.levels) == levels
    assert not config.priors.fit
    assert [level["min_size"] for level in levels] != pytest.approx([6.4, 12.8, 21.76, 33.28, 44.8], rel=0.01)
    assert read(run / "run.json")["fitted_priors"]["is_fitted"]

    monkeypatch.setattr(auto_settings, "choose_priors", None)  # which nothing may call from here on
    run_command(tmp_path, "train", *overrides, "trainer.max_epochs=2", "resume=run")
    assert levels_in(run) == levels
    assert "model.levels" not in capsys.readouterr().out  # no other settings than it was begun with
    assert read(run / "run.json")["fitted_priors"]["is_fitted"]


@pytest.mark.slow
def test_fitted_priors_are_those_of_repetitions_and_of_runs_that_start_from_it(tmp_path: Path) -> None:
    run_command(tmp_path, "train", *FEW_STEPS, "hydra.run.dir=run")
    run_command(tmp_path, "train", "--config-path", str(tmp_path / "run" / ".hydra"), "hydra.run.dir=again")
    run_command(tmp_path, "train", *FEW_STEPS, "init_from=run", "hydra.run.dir=from_it")  # its box heads know them
    assert levels_in(tmp_path / "again") == levels_in(tmp_path / "from_it") == levels_in(tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["backbone=squeezenet", "backbone.weights=nothing.pth", *TOY, "data=toy"], "backbone.weights=nothing.pth"),
        (["init_from=nowhere.pth", "data=voc_folder", "data.root=nowhere_either"], "nowhere.pth"),
        ([*SMALL, "trainer.precision=seven"], "trainer.precision is 'seven'"),
        ([*SMALL, "trainer.val_check_interval=5"], "`val_check_interval` (5) must be less than or equal to the number"),
        ([*SMALL, "trainer.limit_val_batches=0.1"], "Please increase the `limit_val_batches`"),
        ([*SMALL, "postprocess=null"], "postprocess is null"),
        (["data=toy", "data.module=null"], "data.module is null"),
        ([*SMALL, "data.num_val=few"], "num_val is 'few'"),
        ([*SMALL, "data.side_px=null"], "data.side_px is null"),
        ([*SMALL, "data.train_difficult=abc"], "data.train_difficult is 'abc'"),
        (["data=voc_folder", "data.root=.", "data.xml_offset=one"], "data.xml_offset is 'one'"),
        ([*SMALL, "callbacks.speed=off"], "callbacks.speed is"),
        ([*SMALL, "callbacks.best.monitor=val/map50"], "callbacks.best.monitor is 'val/map50'"),
        ([*SMALL, "callbacks.best.monitor=val/loss_box"], "monitor=val/loss_box: the highest value counts as the best"),
        ([*SMALL, "extras.channels=[]"], "SSD: list index out of range"),
        ([*SMALL, "+seeds=2"], "seeds=2 has an effect on the command line only"),
    ],
)
def test_what_train_cannot_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], answer: str
) -> None:
    assert answer in refused(capsys, tmp_path, "train", "trainer.accelerator=cpu", *arguments)


SCORED = f"checkpoint=RUN data=toy data.root=TOY {' '.join(TOY)}"


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ("data=toy", "checkpoint"),
        ("checkpoint=nowhere.ckpt", "data="),
        ("checkpoint=RUN data=toy split=tset", "split is 'tset'"),
        ("checkpoint=RUN data=toy postprocess.soft_nms=hard", "postprocess.soft_nms is 'hard'"),
        ("checkpoint=RUN data=toy device=null", "device is null"),
        ("checkpoint=RUN data=toy seed=abc", "seed is 'abc'"),
        ("checkpoint=RUN data=voc_folder data.root=TOY data.val_fraction=10%", "val_fraction is '10%'"),
        ("checkpoint=RUN data=voc2007 data.root=nowhere", "aeroplane"),
        (f"{SCORED} visualizations=RUN/run.json", "/run/run.json: File exists"),
        (f"{SCORED} record=RUN", "/run: Is a directory"),
        (f"{SCORED} output=RUN/run.json/a.json", "/run/run.json/a.json: File exists"),
        (f"{SCORED} output=/dev/full", "output=/dev/full: No space left"),
        ("checkpoint=RUN data=toy num_visualizations=0", "num_visualizations is 0"),
        ("checkpoint=nowhere data=toy output=new/a.json visualizations=drawn", "nowhere"),
        (
            "checkpoint=RUN data=yolo_folder data.root=. data.test_split=test data.class_names=[ring,disk]",
            "numbers them otherwise",
        ),
    ],
)
def test_what_evaluate_cannot_do(
    trained: Path, capsys: pytest.CaptureFixture[str], arguments: str, answer: str, tmp_path: Path
) -> None:
    words = arguments.replace("RUN", str(trained / "run")).replace("TOY", str(trained / "datasets/toy")).split()
    make(tmp_path, "images/test/a.jpg")  # YOLO's, without names of classes
    put(tmp_path / "labels/test/a.txt", "0 .5 .5 .2 .2\n")
    with pytest.MonkeyPatch.context() as patch:
        if "output=/dev/full" not in words:
            patch.setattr(evaluate, "score", None)  # found before the work
        assert answer in refused(capsys, tmp_path, "evaluate", *words)
    assert {path.name for path in tmp_path.iterdir()} <= {"images", "labels", "datasets"}


def test_drawings_replace_no_image(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = trained / "datasets/toy/JPEGImages/test_00003.jpg"
    before = image.read_bytes()
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn/another name.jpg").hardlink_to(image)
    for folder in (image.parent, tmp_path / "drawn"):
        message = refused(capsys, trained, *EVALUATE, f"visualizations={folder}")
        assert f"visualizations={folder}: the drawings could replace {image.parent}/test_0000" in message
    assert image.read_bytes() == before


def rewritten(trained: Path, folder: Path, pattern: str, text: str, files: str = "*") -> list[str]:
    """Copy the toy set and replace a pattern in its annotations. Gives the overrides that score it."""
    shutil.copytree(trained / "datasets" / "toy", folder / "other")
    for path in (folder / "other" / "Annotations").glob(files):
        path.write_text(re.sub(pattern, text, path.read_text()))
    place = ["data=voc_folder", f"data.root={folder / 'other'}", "split=test", "data.num_workers=0"]
    return [f"checkpoint={trained / 'run'}", *place]


ZEBRA = ("<name>.*?</name>", "<name>zebra</name>")


@pytest.mark.parametrize(
    ("command", "on_error"), [(["evaluate"], "raise"), (["export", "format=onnx", "output=a.onnx"], "skip")]
)
def test_classes_that_have_nothing_in_common_are_reported_in_one_sentence(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], on_error: str
) -> None:
    with pytest.raises(SystemExit):
        run_command(tmp_path, *command, *rewritten(trained, tmp_path, *ZEBRA), f"data.on_error={on_error}")
    printed = capsys.readouterr()
    known = ", ".join(CLASSES)
    told = f"error: the model knows {known}; the annotations of the test split have zebra: they share none"
    assert printed.err.strip().splitlines()[-1] == told
    assert "zebra" not in printed.out + printed.err.replace(told, "")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((*ZEBRA, "test_00003.xml"), f"object 1 'zebra' is of none of the 5 classes: {', '.join(CLASSES)}"),
        (
            ("<difficult>.</difficult>", "<difficult>1</difficult>"),
            r"all \d+ objects of the test split are crowds or difficult",
        ),
    ],
)
def test_objects_that_are_not_scored_are_reported(
    trained: Path, tmp_path: Path, changes: tuple[str, ...], told: str
) -> None:
    assert re.search(
        told, output_of(tmp_path, "evaluate", *rewritten(trained, tmp_path, *changes), "data.on_error=skip")
    )


def test_a_detector_that_does_not_know_what_it_was_trained_on_says_so(trained: Path, tmp_path: Path) -> None:
    detector = Detector.load(trained / "run")
    data = ["data=voc_folder", f"data.root={trained / 'datasets/toy'}", "data.num_workers=0", "data.val_fraction=.5"]
    known = detector.data_settings
    for settings, split, is_said in ((None, "null", True), (None, "val", False), (known, "null", False)):
        detector.data_settings = settings
        detector.save(tmp_path / "a.ckpt")
        overrides = ["checkpoint=a.ckpt", "split=val", f"data.val_split={split}", *data]
        said = "does not say which images its training held out"
        assert (said in output_of(tmp_path, "evaluate", *overrides)) == is_said


def images_of(name: str, count: int, *things: Thing) -> list[Spec]:
    return [Spec(f"{name}_{index}.jpg", (40, 60), things) for index in range(count)]


CATS, NONE = images_of("cat", 8, Thing("cat", (8, 8, 39, 39))), images_of("none", 4)
DIFFICULT = images_of("difficult", 2, Thing("cat", (8, 8, 39, 39), difficult=True))


def write_splits(root: Path, **splits: list[Spec]) -> list[str]:
    """Write a VOC data set, and return the overrides that train on it."""
    for split, images in splits.items():
        write_voc(root, split, images)
    small = [item for item in SMALL if not item.startswith(("data.num_t", "data.num_v", "data.side"))]
    return [*small, "data=voc_folder", f"data.root={root}", "data.train_split=train"]


def test_the_last_weights_are_taken_where_validation_has_nothing_to_score(tmp_path: Path) -> None:
    overrides = write_splits(tmp_path / "voc", train=CATS, exam=CATS, val=[*DIFFICULT, NONE[0]])
    splits = ["data.val_split=val", "data.test_split=exam"]
    run_command(tmp_path, "train", *overrides, *splits, "hydra.run.dir=run", "test=true", "logger=csv")
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    said = (run / "train.log").read_text()
    assert "val: there is no object to score in its 3 images" in said
    assert "the last weights are taken" in said
    assert read(run / "run.json")["splits"] == {"train": ["train"], "val": ["val"], "test": ["exam"]}
    assert {path.name for path in (run / "checkpoints").iterdir()} - {"previous.ckpt"} == {"last.ckpt"}
    result = read(run / "result.json")
    assert Path(result["checkpoint"]) == find_checkpoint(run) == read_run(run).checkpoint == last
    data = [word for word in overrides if word.startswith("data")]  # the checkpoint keeps the name of the split
    run_command(tmp_path, "evaluate", "checkpoint=run", *data, "output=scores.json")
    assert read(tmp_path / "scores.json")["map_11point"] == result["scores"]["test/map_11point"]


@pytest.mark.filterwarnings("error:Total length of")  # of Lightning, since nothing is validated
def test_a_run_on_everything_says_that_images_without_objects_teach_nothing(tmp_path: Path) -> None:
    overrides = write_splits(tmp_path / "voc", train=[CATS[0], *NONE])
    steps = ["data.batch_size=1", "data.val_fraction=0", "data.test_split=null", "trainer.max_epochs=1", "test=true"]
    more = ["hydra.run.dir=run", "logger=csv", "loss.class_loss.min_negatives=0"]
    run_command(tmp_path, "train", *overrides, *steps, *more)
    said = "train: 4 of 5 images (80%) have no object and teach nothing, since loss.class_loss.min_negatives=0"
    logged = (tmp_path / "run" / "train.log").read_text()
    assert said in logged
    assert "test=true has no effect: this data set has no test split" in logged
    losses = [float(row["loss"]) for row in rows(tmp_path / "run", "loss")]
    assert [loss == 0 for loss in sorted(losses)] == [True] * 4 + [False]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]
