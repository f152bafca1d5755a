"""The commands as a user runs them, at a small size, in one process."""

import csv
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from helpers.commands import SMALL, WHOLE, refused, run_command
from helpers.datasets import open_csv, open_voc
from helpers.prediction_media import write_video
from ssd_lightning import assembly, auto_settings, train
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
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

TOY_COUNTS = SMALL[1:4]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def rows(run: Path, column: str) -> list[dict[str, str]]:
    """Rows of the log that have a value in a column."""
    with (run / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row[column]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a finished run in `run/`, with the toy set in `datasets/toy`."""
    directory = tmp_path_factory.mktemp("trained")
    overrides = ["test=true", "logger=[csv,tensorboard]", "trainer.profiler=simple"]
    run_command(directory, "train", *WHOLE, "hydra.run.dir=run", *overrides)
    return directory


def test_a_run_leaves_a_page_images_and_what_each_logger_writes(trained: Path) -> None:
    assert list((trained / "run" / "tensorboard").glob("events*"))
    assert (trained / "run" / "report.html").is_file()
    assert list((trained / "run" / "dashboard" / "images").iterdir())


def test_validation_is_logged_every_epoch(trained: Path) -> None:
    for name in ("val/map", "val/map_50", "val/map_11point", "val/map_area", "val/loss_box", "val/loss_cls"):
        assert len(rows(trained / "run", name)) == 2, name
    assert rows(trained / "run", "test/map_11point")
    steps = rows(trained / "run", "loss")  # of so short a run each is logged
    assert [row["step"] for row in steps] == ["0", "1", "2", "3", "4", "5"]
    assert all(float(row["lr"]) > 0 and float(row["train/loss_box"]) > 0 for row in steps)
    scores = read(trained / "run" / "result.json")["scores"]
    assert {"val/map_11point", "test/map_11point"} <= scores.keys()


def test_a_run_says_how_fast_it_is_and_where_its_time_goes(trained: Path) -> None:
    logged = rows(trained / "run", "speed/images_per_s")
    assert [int(row["step"]) for row in logged] == [1, 2, 3, 4, 5]  # the first has none before it
    parts = ("data", "transfer", "forward", "backward", "optimizer")
    for row in logged:
        seconds_a_batch = sum(float(row[f"speed/{part}_ms"]) for part in parts) / 1000
        assert 0 < seconds_a_batch <= 8 / float(row["speed/images_per_s"]) * 1.001
        assert 0 < float(row["speed/data_wait"]) < 1
        assert float(row["speed/peak_memory_mib"]) > 100
    assert (trained / "run" / "fit-profile.txt").is_file()


def test_the_checkpoint_holds_plain_containers_and_is_enough_by_itself(trained: Path) -> None:
    checkpoint = torch.load(trained / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["detector"]["class_names"] == ["disk", "ring", "square", "star", "triangle"]
    detector = Detector.load(trained / "run")
    assert detector.image_size == (64, 64)
    assert len(detector([np.zeros((50, 70, 3), np.uint8)])) == 1


def test_evaluate_scores_every_image_as_the_test_inside_training_did_and_draws(trained: Path) -> None:
    run_command(trained, "evaluate", "checkpoint=run", "data=toy", "data.num_train=24", "data.num_val=5",
        "data.num_test=7", "data.side_px=96", "data.num_workers=0", "output=scores.json", "visualizations=drawn",
        "num_visualizations=3",
    )  # fmt: skip
    scores = read(trained / "scores.json")
    assert scores["images"] == 7
    inside = float(rows(trained / "run", "test/map_area")[-1]["test/map_area"])
    assert scores["map_area"] == pytest.approx(inside, abs=1e-5)
    assert set(scores["ap_area"]) == {"disk", "ring", "square", "star", "triangle"}
    assert (trained / "drawn" / "overview.jpg").is_file()
    assert len(list((trained / "drawn").glob("test_*.jpg"))) == 3


def test_evaluate_scores_with_other_settings_of_the_post_processing(trained: Path) -> None:
    counts = []
    for setting in ("score_threshold=saved", "max_detections=1", "score_threshold=1"):
        run_command(trained, "evaluate", "checkpoint=run", "data=toy", "data.num_train=24", "data.num_val=5",
            "data.num_test=7", "data.side_px=96", "data.num_workers=0", f"postprocess.{setting}", "record=other.npz",
        )  # fmt: skip
        counts.append(len(EvaluationRecord.load(trained / "other.npz").detections.scores))
    assert counts[0] > 7
    assert counts[1:] == [7, 0]


def test_drawings_of_images_of_one_name_in_several_folders_stay_apart(trained: Path, tmp_path: Path) -> None:
    rows = ["image,label,xmin,ymin,xmax,ymax"]
    for folder in ("cam1", "cam2", "."):
        name = "overview.jpg" if folder == "." else "f1.jpg"
        (tmp_path / "test" / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(trained / "datasets/toy/JPEGImages/test_00000.jpg", tmp_path / "test" / folder / name)
        rows.append(f"{folder}/{name},disk,1,2,30,40")
    (tmp_path / "test.csv").write_text("\n".join(rows))
    dataset = open_csv(splits=[{"root": str(tmp_path), "split": "test"}])

    evaluate.draw_comparisons(Detector.load(trained / "run"), dataset, tmp_path / "drawn", count=3)

    drawn = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert drawn == {"f1.jpg", "f1_2.jpg", "overview_2.jpg", "overview.jpg"}


PREDICT = [
    "predict", "checkpoint=run", "source=datasets/toy/JPEGImages/test_0000*.jpg", "score_threshold=0.0",
    "max_detections=5",
]  # fmt: skip


@pytest.fixture(scope="module")
def seen(trained: Path) -> dict[str, Any]:
    run_command(trained, *PREDICT, "output=seen")
    report: dict[str, Any] = read(trained / "seen" / "predictions.json")
    return report


def test_predict_writes_images_and_json(trained: Path, seen: dict[str, Any]) -> None:
    assert len(seen["images"]) == 7
    for image in seen["images"]:
        assert Image.open(trained / "seen" / image["drawn"]).size == (image["width"], image["height"]) == (96, 96)
        for found in image["detections"]:
            x1, y1, x2, y2 = found["box_xyxy_px"]
            assert 0 <= x1 <= x2 <= 96
            assert 0 <= y1 <= y2 <= 96
            assert found["class"] in seen["classes"]
    assert seen["images"][0]["detections"]


def test_predict_in_tiles_writes_the_same_form(trained: Path, seen: dict[str, Any]) -> None:
    run_command(trained, *PREDICT, "tiles=48", "overlap=0.3", "batch_size=3", "output=tiled")
    tiled = read(trained / "tiled" / "predictions.json")
    assert seen.keys() == tiled.keys()
    for before, after in zip(seen["images"], tiled["images"], strict=True):
        assert (before.keys(), before["file"]) == (after.keys(), after["file"])
        assert before["detections"] != after["detections"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tiles", 16), ("overlap", 1.5), ("whole_image", 3), ("on_error", "ignore"), ("frame_stride", 0),
        ("score_threshold", 40), ("recursive", "maybe"),
    ],
)  # fmt: skip
def test_predict_names_a_wrong_setting(name: str, value: object) -> None:
    config: Any = OmegaConf.merge(compose_config("predict", ["checkpoint=x", "source=y", "tiles=640"]), {name: value})
    with pytest.raises(ConfigurationError, match=f"^{name} is '?{value}'?;"):
        predict.check_settings(config)


@pytest.mark.parametrize("overrides", [[], ["on_error=skip", "save=json"]])
def test_predict_lists_what_it_leaves_out(
    trained: Path, capsys: pytest.CaptureFixture[str], overrides: list[str]
) -> None:
    folder = trained / "mixed"
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(folder / "good.png")
    (folder / "bad.jpg").write_text("<html>not found</html>")
    run_command(trained, "predict", "checkpoint=run", "source=mixed", "output=out", *overrides)
    report = read(trained / "out" / "predictions.json")
    assert [Path(image["file"]).name for image in report["images"]] == ["good.png"]
    assert [image["drawn"] for image in report["images"]] == [None if overrides else "good.jpg"]
    assert "bad.jpg" in report["skipped"][0]
    printed = capsys.readouterr().out
    assert "skipped 1 of 2 sources:\n  mixed/bad.jpg: " in printed
    assert " in 1 image: json" in printed


def test_predict_of_nothing_but_bad_images_fails(
    trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    overrides = [f"checkpoint={trained / 'run'}", "save=[images,json,csv,coco,voc]", "output=none"]
    said = refused(capsys, tmp_path, "predict", *overrides, f"source={tmp_path}")
    assert said == "error: none of the 2 sources can be read"
    for source in (["source=a.jpg"], [f"source={tmp_path}", "on_error=raise"]):
        assert "a.jpg: the file is empty" in refused(capsys, tmp_path, "predict", *overrides, *source)
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
        # Rounding to 0.01 pixels and 0.0001, and what other batches do to the last bits of the scores, by which
        # detections of nearly the same score change places.
        alone = detector(frame).select(0.1, ["ring", "disk"]).as_record()["detections"]
        lists = (
            sorted(found, key=lambda one: (one["class"], one["box_xyxy_px"])) for found in (record["detections"], alone)
        )
        for found, expected in zip(*lists, strict=True):
            assert found["class"] == expected["class"]
            assert found["box_xyxy_px"] == pytest.approx(expected["box_xyxy_px"], abs=0.02)
            assert found["score"] == pytest.approx(expected["score"], abs=2e-4)
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
        (["source=*.jpg"], "source=*.jpg"),
    ],
)
def test_what_predict_cannot_do(
    trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, overrides: list[str], answer: str
) -> None:
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "film.mp4").write_bytes(b"no film")
    usual = [f"checkpoint={trained / 'run'}", "source=good.png"]
    assert answer in refused(capsys, tmp_path, "predict", *usual, *overrides)


def test_predict_keeps_what_it_has_where_it_is_interrupted(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / name)

    def read_or_interrupt(path: Path) -> np.ndarray:
        if path.name == "b.png":
            raise KeyboardInterrupt
        return read_image(path)

    monkeypatch.setattr(frames, "read_image", read_or_interrupt)
    with pytest.raises(SystemExit) as end:
        run_command(
            tmp_path, "predict", f"checkpoint={trained / 'run'}", f"source={tmp_path}", "batch_size=1", "output=out"
        )
    assert end.value.code == 130
    report = read(tmp_path / "out" / "predictions.json")
    assert [Path(image["file"]).name for image in report["images"]] == ["a.png"]


def test_a_run_goes_on_at_its_last_epoch(trained: Path) -> None:
    resumed = "resume=run/checkpoints/previous.ckpt"  # of the end of the first epoch
    run_command(trained, "train", *SMALL, "hydra.run.dir=whole", resumed, "logger=none")
    half, whole, straight = (
        torch.load(trained / path, weights_only=True)
        for path in ("run/checkpoints/previous.ckpt", "whole/checkpoints/last.ckpt", "run/checkpoints/last.ckpt")
    )
    assert (half["global_step"], whole["global_step"]) == (3, 6)
    assert all(torch.equal(whole["state_dict"][name], value) for name, value in straight["state_dict"].items())


def test_a_run_that_was_killed_before_its_result_only_writes_that(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = trained / "killed"
    shutil.copytree(trained / "run", left)
    *logged, _ = (left / "metrics.csv").read_text().splitlines()  # but for the test, which is not asked for again
    result = read(left / "result.json")
    (left / "result.json").unlink()
    run_command(trained, "train", *SMALL, "hydra.run.dir=killed", "resume=auto")
    assert (left / "metrics.csv").read_text().splitlines() == logged
    again = read(left / "result.json")
    validated = {name: score for name, score in result["scores"].items() if name.startswith("val/")}
    assert {name: again["scores"][name] for name in validated} == validated
    assert "validation images" in capsys.readouterr().out


def test_a_run_ends_when_its_budget_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by half a second whenever it is read."""
    readings = itertools.count(step=0.5)
    monkeypatch.setattr(assembly, "monotonic", lambda: next(readings))
    monkeypatch.setattr(train, "command_start", lambda *programs: 0.0)
    overrides = [item for item in SMALL if not item.startswith(("trainer.check_val", "trainer.max_epochs"))]
    overrides += ["callbacks.best.monitor=val/loss_cls", "test=true"]  # the highest loss is an early one
    run_command(tmp_path, "train", *overrides, "budget=10s", "hydra.run.dir=run", "logger=none")
    record = read(tmp_path / "run" / "run.json")["budget"]
    assert record["seconds"] == 10
    assert 8 < record["used_seconds"] < 12
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    kept = saved["callbacks"]["BudgetCallback"]
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] < saved["global_step"]  # what the test restores is not recorded
    assert record["steps"] == kept["steps"] == saved["global_step"] > 6
    assert record["images"] == kept["images"] == 8 * record["steps"]
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] < 1e-3  # of .005: the schedule has come to its end
    assert "map_11point" in "".join(read_run(tmp_path / "run").result["scores"])  # type: ignore[index]


FEW_STEPS = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "logger=none")


def levels_in(run: Path) -> list[dict]:
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    levels: list[dict] = saved["detector"]["network"]["levels"]
    return levels


def test_a_run_without_validation_keeps_its_last_weights_and_its_fitted_priors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [*SMALL, *FEW_STEPS, "trainer.check_val_every_n_epoch=5"]
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "best.ckpt").write_bytes(b"of an earlier run")
    run_command(tmp_path, "train", *small, "priors=auto", "hydra.run.dir=run")
    told, summary = capsys.readouterr()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]
    assert Detector.load(tmp_path / "run").class_names
    assert "scores:     none, since nothing was validated" in summary
    levels, config = levels_in(tmp_path / "run"), OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert "training boxes reach IoU .5 with a fitted prior" in told
    assert OmegaConf.to_container(config.model.levels) == levels
    assert not config.priors.fit
    assert [level["min_size"] for level in levels] != pytest.approx([6.4, 12.8, 21.76, 33.28, 44.8], rel=0.01)
    assert read(tmp_path / "run" / "run.json")["fitted_priors"]["is_fitted"]

    monkeypatch.setattr(auto_settings, "choose_priors", None)  # which nothing may call from here on
    capsys.readouterr()
    run_command(tmp_path, "train", *small, "priors=auto", "trainer.max_epochs=2", "resume=run", "hydra.run.dir=run")
    assert levels_in(tmp_path / "run") == levels
    assert "model.levels" not in capsys.readouterr().out  # no other settings than it was begun with
    assert read(tmp_path / "run" / "run.json")["fitted_priors"]["is_fitted"]


@pytest.mark.slow
def test_fitted_priors_are_those_of_repetitions_and_of_runs_that_start_from_it(tmp_path: Path) -> None:
    small = [*SMALL, *FEW_STEPS]
    run_command(tmp_path, "train", *small, "priors=auto", "hydra.run.dir=run")
    levels = levels_in(tmp_path / "run")
    run_command(tmp_path, "train", "--config-path", str(tmp_path / "run" / ".hydra"), "hydra.run.dir=again")
    assert levels_in(tmp_path / "again") == levels
    run_command(tmp_path, "train", *small, "priors=auto", "init_from=run", "hydra.run.dir=from_it")
    assert levels_in(tmp_path / "from_it") == levels  # which its box heads know


@pytest.mark.slow  # of 26 million weights; tests/test_choices.py builds the network
def test_the_readme_line_runs_where_there_is_no_voc(tmp_path: Path) -> None:
    run_command(
        tmp_path, "train", "backbone=vgg16", "backbone.weights=null", "trainer.devices=1", "trainer.fast_dev_run=true",
        "data=toy", "data.batch_size=2", "data.num_train=4", "data.num_val=2", "data.num_test=2", "data.num_workers=0",
        "trainer.accelerator=cpu",
    )  # fmt: skip
    assert (tmp_path / "datasets" / "toy").is_dir()


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (
            ["backbone=squeezenet", "backbone.weights=nothing.pth", *TOY_COUNTS, "data=toy"],
            "backbone.weights=nothing.pth",
        ),
        (["init_from=nowhere.pth", "data=voc_folder", "data.root=nowhere_either"], "nowhere.pth"),
        ([*SMALL, "trainer.precision=seven"], "error: trainer: Precision 'seven' is invalid"),
        ([*SMALL, "postprocess=null"], "postprocess is None"),
        (["data=toy", "data.module=null"], "data.module is None"),
        ([*SMALL, "data.num_val=few"], "num_val is 'few'"),
        ([*SMALL, "data.side_px=null"], "side in pixels is None"),
        ([*SMALL, "data.train_difficult=abc"], "data.train_difficult) is 'abc'"),
        (["data=voc_folder", "data.root=.", "data.xml_offset=one"], "data.xml_offset is 'one'"),
        ([*SMALL, "trainer.num_nodes=null"], "trainer.num_nodes is None"),
        ([*SMALL, "callbacks.speed=off"], "callbacks.speed is"),
        ([*SMALL, "seed=abc"], "seed is 'abc'"),
        ([*SMALL, "trainer.max_epochs=many"], "trainer.max_epochs is 'many'"),
        ([*SMALL, "callbacks.best.monitor=val/map50"], "callbacks.best.monitor is 'val/map50'"),
    ],
)
def test_what_train_cannot_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], answer: str
) -> None:
    assert answer in refused(capsys, tmp_path, "train", "trainer.accelerator=cpu", *arguments)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["data=toy"], "checkpoint"),
        (["checkpoint=nowhere.ckpt"], "data="),
        (["checkpoint=RUN", "data=toy", "split=tset"], "split is 'tset'"),
        (["checkpoint=RUN", "data=toy", "postprocess.soft_nms=hard"], "postprocess.soft_nms is 'hard'"),
        (["checkpoint=RUN", "data=toy", "device=null"], "device=None"),
        (["checkpoint=RUN", "data=toy", "seed=abc"], "seed is 'abc'"),
        (["checkpoint=RUN", "data=voc_folder", "data.root=TOY", "data.val_fraction=10%"], "val_fraction is '10%'"),
        (["checkpoint=RUN", "data=voc2007", "data.root=nowhere"], "aeroplane"),
        (
            ["checkpoint=RUN", "data=toy", "data.root=TOY", *TOY_COUNTS, "visualizations=TOY/ImageSets/Main/test.txt"],
            "Main/test.txt",
        ),
    ],
)
def test_what_evaluate_cannot_do(
    trained: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], answer: str, tmp_path: Path
) -> None:
    places = {"RUN": str(trained / "run"), "TOY": str(trained / "datasets/toy")}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    assert answer in refused(capsys, tmp_path, "evaluate", *arguments)


def rewritten(trained: Path, folder: Path, pattern: str, text: str, files: str = "*") -> list[str]:
    """Copy the toy set and replace a pattern in its annotations. Gives the overrides that score it."""
    shutil.copytree(trained / "datasets" / "toy", folder / "other")
    for path in (folder / "other" / "Annotations").glob(files):
        path.write_text(re.sub(pattern, text, path.read_text()))
    place = ["data=voc_folder", f"data.root={folder / 'other'}", "split=test", "data.num_workers=0"]
    return [f"checkpoint={trained / 'run'}", *place]


@pytest.mark.parametrize(
    ("command", "on_error"), [(["evaluate"], "raise"), (["export", "format=onnx", "output=a.onnx"], "skip")]
)
def test_classes_that_have_nothing_in_common_are_reported_in_one_sentence(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], on_error: str
) -> None:
    overrides = rewritten(trained, tmp_path, "<name>.*?</name>", "<name>zebra</name>")
    with pytest.raises(SystemExit):
        run_command(tmp_path, *command, *overrides, f"data.on_error={on_error}")
    printed = capsys.readouterr()
    known = ", ".join(sorted(TOY_CLASSES))
    told = f"error: the model knows {known}; the annotations of the test split have zebra: they share none"
    assert printed.err.strip().splitlines()[-1] == told
    assert "zebra" not in printed.out + printed.err.replace(told, "")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_class_that_the_model_lacks_is_reported_by_object(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], on_error: str
) -> None:
    zebra = ("<name>.*?</name>", "<name>zebra</name>", "test_00003.xml")
    overrides = ["evaluate", *rewritten(trained, tmp_path, *zebra), f"data.on_error={on_error}"]
    if on_error == "skip":
        run_command(tmp_path, *overrides)
        told = capsys.readouterr().out
    else:
        told = refused(capsys, tmp_path, *overrides)
    assert f"object 1 'zebra' is of none of the {len(TOY_CLASSES)} classes: {', '.join(sorted(TOY_CLASSES))}" in told


def test_objects_that_the_metrics_ignore_are_reported(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    difficult = ("<difficult>.</difficult>", "<difficult>1</difficult>")
    run_command(tmp_path, "evaluate", *rewritten(trained, tmp_path, *difficult))
    assert re.search(r"all \d+ objects of the test split are crowds or difficult", capsys.readouterr().out)


@pytest.mark.slow
def test_a_sweep(tmp_path: Path) -> None:
    overrides = ["trainer.max_epochs=1", "optimizer.lr=0.001,0.002", "hydra.sweep.dir=sweep"]
    run_command(tmp_path, "train", "--multirun", *SMALL, *overrides)
    assert [(tmp_path / "sweep" / job / "checkpoints" / "best.ckpt").is_file() for job in "01"] == [True, True]


@pytest.mark.slow
def test_wandb_without_an_account_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    overrides = ["trainer.max_epochs=1", "logger=[csv,wandb]", "hydra.run.dir=run"]
    command = [sys.executable, "-m", "ssd_lightning.train", *SMALL, *overrides]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("recorded offline") == 1
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.slow
def test_two_processes_train_and_see_every_image_once(tmp_path: Path) -> None:
    overrides = ["trainer.devices=2", "hydra.run.dir=run", "test=true"]
    command = [sys.executable, "-m", "ssd_lightning.train", *SMALL, *overrides]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    inside = float(rows(tmp_path / "run", "test/map_area")[-1]["test/map_area"])
    scoring = [
        sys.executable, "-m", "ssd_lightning.evaluate", "checkpoint=run", "data=voc_folder", "data.root=datasets/toy",
        "data.num_workers=0", "output=scores.json",
    ]  # fmt: skip
    subprocess.run(scoring, cwd=tmp_path, check=True, timeout=300)
    assert read(tmp_path / "scores.json")["map_area"] == pytest.approx(inside, abs=1e-5)


def write_voc(root: Path, splits: dict[str, list[str]]) -> list[str]:
    """Write small images, each with the objects that its name tells: `cat_1`, `none_2`, `difficult_3`."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, names in splits.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for number, name in enumerate(names):
            image = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg")
            thing = (
                f"<object><name>cat</name><difficult>{int(name.startswith('difficult'))}</difficult><bndbox>"
                "<xmin>9</xmin><ymin>9</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object>"
            )
            things = "" if name.startswith("none") else thing
            (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{things}</annotation>")
    small = [item for item in SMALL if not item.startswith(("data.num_t", "data.num_v", "data.side"))]
    return [*small, "data=voc_folder", f"data.root={root}", "data.train_split=train"]


def test_the_last_weights_are_taken_where_validation_has_nothing_to_score(tmp_path: Path) -> None:
    cats = [f"cat_{index}" for index in range(8)]
    overrides = write_voc(
        tmp_path / "voc", {"train": cats, "exam": cats, "val": ["none_0", "difficult_1", "difficult_2"]}
    )
    splits = ["data.val_split=val", "data.test_split=exam"]
    run_command(tmp_path, "train", *overrides, *splits, "hydra.run.dir=run", "test=true", "logger=csv")
    folder = tmp_path / "run"
    said = (folder / "train.log").read_text()
    assert "val: there is no object to score in its 3 images" in said
    assert "the last weights are taken" in said
    splits = read(folder / "run.json")["splits"]
    assert splits == {"train": ["train"], "val": ["val"], "test": ["exam"]}
    assert [path.name for path in (folder / "checkpoints").iterdir() if path.name != "previous.ckpt"] == ["last.ckpt"]
    result = read(folder / "result.json")
    assert result["checkpoint"] == str(folder / "checkpoints" / "last.ckpt")
    assert find_checkpoint(folder).name == "last.ckpt"
    assert read_run(folder).checkpoint == folder / "checkpoints" / "last.ckpt"
    evaluated = [word for word in overrides if word.startswith("data")]
    run_command(
        tmp_path, "evaluate", "checkpoint=run", *evaluated, "output=scores.json"
    )  # the checkpoint keeps the name of the split
    assert read(tmp_path / "scores.json")["map_11point"] == result["scores"]["test/map_11point"]


def test_a_run_on_everything_says_that_images_without_objects_teach_nothing(tmp_path: Path) -> None:
    names = ["cat_0", *(f"none_{index}" for index in range(4))]
    overrides = write_voc(tmp_path / "voc", {"train": names})
    steps = ["data.batch_size=1", "data.val_fraction=0", "data.test_split=null", "trainer.max_epochs=1", "test=true"]
    run_command(
        tmp_path, "train", *overrides, *steps, "hydra.run.dir=run", "logger=csv", "loss.class_loss.min_negatives=0"
    )
    said = "train: 4 of 5 images (80%) have no object and teach nothing, since loss.class_loss.min_negatives=0"
    assert said in (tmp_path / "run" / "train.log").read_text()
    losses = [float(row["loss"]) for row in rows(tmp_path / "run", "loss")]
    assert len(losses) == 5
    assert sum(loss == 0 for loss in losses) == 4
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]


def test_predict_never_replaces_the_images(trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.jpg"
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(mine)
    before = mine.read_bytes()
    arguments = [f"checkpoint={trained / 'run'}", f"source={tmp_path}", f"output={tmp_path}"]
    assert "would replace the image mine.jpg" in refused(capsys, tmp_path, "predict", *arguments)
    assert mine.read_bytes() == before


def test_evaluate_and_predict_leave_no_log(trained: Path) -> None:
    assert not list(trained.glob("*.log"))
