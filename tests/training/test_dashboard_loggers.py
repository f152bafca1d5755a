"""What W&B and TensorBoard hold of one run, read back from the file of an offline run and from the event files."""

import io
import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import wandb
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_workspaces.reports.v2 import interface

from helpers.docs_commands import REPOSITORY
from helpers.interrupted import EPOCHS, NUM_IMAGES, fit, module
from helpers.wandb_records import config_of, files_of, history_of, records_of
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.pr_curves import PRCurve, pr_curves
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.training import loggers
from ssd_lightning.training.callbacks.dashboard import wandb_sink
from ssd_lightning.training.callbacks.dashboard.callback import Dashboard
from ssd_lightning.training.callbacks.dashboard.contents import Validation
from ssd_lightning.training.callbacks.dashboard.wandb_sink import class_ap_chart, confusion_chart, pr_chart
from ssd_lightning.training.callbacks.evaluations import Evaluations
from ssd_lightning.training.callbacks.speed import Speed
from ssd_lightning.training.record import run_record

NAMES = ("a|b/cat $x_", "dog\n\udc80")
Rows = list[dict[str, Any]]
LOGGED = ("a|b/cat $x_", "dog\n\\udc80")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("logged") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_DATA_DIR", str(run.parent / "data"))
        patch.setenv("WANDB_TAGS", "mine")
        run.mkdir()
        wandb.teardown()  # else the process keeps the mode that an earlier test's run had
        to_wandb = loggers.SturdyWandbLogger(
            project="p", name="tiny", group="recipe", job_type="train", tags=["tiny"], save_dir=str(run)
        )
        to_tensorboard = loggers.SturdyTensorBoardLogger(save_dir=str(run), name="", version="tensorboard")
        for logger in (to_wandb, to_tensorboard):
            logger.log_hyperparams({"seed": 3, "name": "tiny", "run": run_record(3)})
        fit(
            run, callbacks=(Dashboard(every_n_validations=2, num_images=4), Evaluations(), Speed()),
            log_every_n_steps=2, logger=[to_wandb, to_tensorboard], default_root_dir=run,
            model=module(class_names=NAMES),
        )  # fmt: skip
        to_wandb.close()
    return run


@pytest.fixture(scope="module")
def events(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()


@pytest.fixture(scope="module")
def records(run: Path) -> list[Any]:
    return records_of(run)


@pytest.fixture(scope="module")
def rows(records: list[Any]) -> Rows:
    return history_of(records)


def column(rows: Rows, name: str) -> list[Any]:
    return [row[name] for row in rows if name in row]


def read_table(run: Path, rows: Rows, name: str) -> Rows:
    content = json.loads((files_of(run) / column(rows, name)[-1]["path"]).read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def test_every_number_arrives(rows: Rows, events: EventAccumulator) -> None:
    scores = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "map_11point", "map_area")
    # What is no UTF-8 is spelled, and costs no row.
    of_validations = [*scores, "loss_box", "loss_cls", *(f"ap_11point/{name}" for name in LOGGED)]
    for name in (f"val/{name}" for name in of_validations):
        assert len(column(rows, name)) == len(events.Scalars(name)) == EPOCHS, name
    for name in ("loss", "train/loss_box", "train/loss_cls", "lr", "epoch"):
        assert min(len(column(rows, name)), len(events.Scalars(name))) >= EPOCHS, name
    for name in ("images_per_s", "data_wait", "peak_memory_mib", "forward_ms"):
        assert column(rows, f"speed/{name}"), name
        assert events.Scalars(f"speed/{name}"), name


def test_the_report_template_shows_what_a_run_logs(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "_get_api", lambda: SimpleNamespace(default_entity="me"))  # else it needs a login
    template = runpy.run_path(str(REPOSITORY / "examples" / "wandb_report.py"))
    logged = {name for row in rows for name in row}
    panels = [
        panel
        for block in template["build_report"]("me", "ssd").blocks
        if isinstance(block, interface.PanelGrid)
        for panel in block.panels
    ]
    shown = {str(name) for panel in panels for name in (getattr(panel, "y", None) or getattr(panel, "media_keys", []))}
    assert shown == {name for group in template["GROUPS"] for name in group}
    logged.add("train/matched_priors")  # by a callback that this run does not have
    assert {*shown, template["STEP"], template["TABLE"]} <= logged


def test_validations_are_shown_at_the_right_steps(rows: Rows) -> None:
    steps = [row["trainer/global_step"] for row in rows if "val/images" in row]
    assert steps == [row["trainer/global_step"] for row in rows if "val/map" in row][::2]


def test_the_same_images_come_with_two_layers_of_boxes(run: Path, rows: Rows) -> None:
    first, last = column(rows, "val/images")
    assert first["captions"] == last["captions"]
    assert len(set(first["captions"])) == 4
    record = EvaluationRecord.load(run / "evaluations" / "val.npz")
    assert all(curve.num_objects for curve in pr_curves(record))  # an empty record would show nothing as well
    assert first["captions"] == [name for name in record.image_ids if name in first["captions"]]
    for place, layers in enumerate(last["all_boxes"]):
        found, true = (
            json.loads((files_of(run) / layers[name]["path"]).read_text())["box_data"]
            for name in ("prediction", "ground_truth")
        )
        assert [box["class_id"] for box in true] == [1, 2]
        index = int(last["captions"][place])
        # The images have 40 x 32 pixels, the squares of W&B the longer side; the box is that of `interrupted`.
        expected = {"minX": 2 / 40, "minY": 2 / 40, "maxX": (10 + index) / 40, "maxY": 16 / 40}
        assert true[0]["position"] == pytest.approx(expected, abs=1e-6)
        for box in found:
            assert set(box) == {"position", "class_id", "box_caption", "scores"}
            assert 0.05 <= box["scores"]["score"] <= 1
            assert all(0 <= value <= 1 for value in box["position"].values())
    assert any(layers["prediction"] for layers in last["all_boxes"])


def test_tables_and_charts_arrive(run: Path, rows: Rows, records: list[Any]) -> None:
    table = read_table(run, rows, "val/ap_per_class")
    assert [row["class"] for row in table] == ["a|b/cat $x_", r"dog\n\udc80"]
    assert [row["objects"] for row in table] == [NUM_IMAGES] * 2
    last = [column(rows, f"val/ap_11point/{name}")[-1] for name in LOGGED]
    assert [row["ap_11point"] for row in table] == pytest.approx(last)
    assert np.mean([row["ap_area"] for row in table]) == pytest.approx(column(rows, "val/map_area")[-1], abs=1e-5)
    shown = config_of(records)["_wandb"]
    assert "dog\\\\n" in json.dumps(shown)  # classes can be filtered by name
    assert set(shown["visualize"]) == {"train/matched_priors", "val/pr_curves", "val/class_ap", "val/confusion_matrix"}
    assert {point["lineKey"] for point in read_table(run, rows, "val/pr_curves_table")} <= {
        row["class"] for row in table
    }
    by_epoch = [point for point in read_table(run, rows, "val/class_ap_table") if point["lineKey"] == "a|b/cat $x_"]
    assert [point["step"] for point in by_epoch] == [1, 2, 3]
    assert [point["lineVal"] for point in by_epoch] == pytest.approx(
        column(rows, "val/ap_11point/a|b/cat $x_"), abs=1e-5
    )
    cells = read_table(run, rows, "val/confusion_matrix_table")
    assert len(cells) == 9
    assert sum(cell["nPredictions"] for cell in cells if cell["Actual"] != "(background)") == 2 * NUM_IMAGES
    levels = read_table(run, rows, "train/matched_priors_table")
    assert len(levels) == 3
    assert sum(level["matched"] for level in levels) >= 2 * 10  # an object has a prior at least
    (batch,) = column(rows, "train/batch")
    assert (files_of(run) / batch["path"]).stat().st_size == batch["size"]


def test_the_best_checkpoint_is_an_artifact_once(run: Path, records: list[Any]) -> None:
    models = [
        request
        for record in records
        if record.HasField("artifact") or record.HasField("request")
        for request in [record.artifact if record.HasField("artifact") else record.request.log_artifact.artifact]
        if request.type == "model"
    ]
    (model,) = models
    about = json.loads(model.metadata)
    assert sorted(model.aliases) == sorted(["best", "latest", f"epoch-{about['epoch']}"])
    assert about["monitor"] == "val/map_11point"
    assert [Path(file.path).name for file in model.manifest.contents] == ["best.ckpt"]
    assert Path(model.manifest.contents[0].local_path) == run / "checkpoints" / "best.ckpt"  # and no copy of it


def test_the_run_is_found_by_recipe_sweep_and_seed(records: list[Any]) -> None:
    begun = next(record.run for record in records if record.HasField("run"))
    assert (begun.project, begun.display_name, begun.run_group, begun.job_type) == ("p", "tiny", "recipe", "train")
    assert list(begun.tags) == ["tiny", "mine"]
    config = config_of(records)
    assert (config["seed"], config["name"]) == (3, "tiny")
    assert config["run"]["git_commit"] == run_record(3)["git_commit"]
    assert config["run"]["versions"]["torch"]
    assert config["run"]["machine"]["processor"]


def test_tensorboard_has_images_at_the_steps_of_their_scores(events: EventAccumulator) -> None:
    steps = [event.step for event in events.Scalars("val/map")][::2]
    for name in ("images", "pr_curves", "confusion_matrix", "class_ap"):
        images = events.Images(f"val/{name}")
        assert [event.step for event in images] == steps
        for event in images:
            pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("L"))
            assert pixels.std() > 5
    for name in ("train/batch", "train/matched_priors"):
        assert len(events.Images(name)) == 1


def test_tensorboard_has_the_table_of_classes(events: EventAccumulator) -> None:
    first, last = events.Tensors("val/ap_per_class/text_summary")
    lines = last.tensor_proto.string_val[0].decode().splitlines()
    assert first.step < last.step
    assert len(lines) == 4
    assert lines[2].startswith(r"| a\|b/cat $x_ | 11 | ")
    assert lines[3].startswith("| dog?? | 11 | ")
    assert float(lines[3].split("|")[3]) == pytest.approx(
        events.Scalars(f"val/ap_11point/{LOGGED[1]}")[-1].value, abs=1e-4
    )


def test_tensorboard_has_settings_and_the_arrangement_of_curves(events: EventAccumulator) -> None:
    from tensorboard.plugins.custom_scalar import layout_pb2
    from tensorboard.plugins.hparams import plugin_data_pb2

    content: dict[str, Any] = events.summary_metadata["_hparams_/session_start_info"].plugin_data
    settings = plugin_data_pb2.HParamsPluginData.FromString(content.content).session_start_info.hparams  # type: ignore[attr-defined]
    assert settings["run/git_commit"].string_value == str(run_record(3)["git_commit"])
    best = max(event.value for event in events.Scalars("val/map_11point"))
    assert events.Scalars("hp_metric")[-1].value == pytest.approx(best)
    (event,) = events.Tensors("custom_scalars__config__")
    shown = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    titles = {chart.title: list(chart.multiline.tag) for category in shown.category for chart in category.chart}
    assert titles["AP by class"] == ["val/ap_11point/.*"]
    assert "train/loss_box" in titles["losses"]


def test_what_becomes_of_the_checkpoint_is_a_word() -> None:
    with pytest.raises(ConfigurationError, match=r"logger.wandb.log_model is 'all'; it can be best, end or none"):
        loggers.SturdyWandbLogger(log_model="all")  # type: ignore[arg-type]


def many_classes(count: int, points: int, validations: int) -> Validation:
    ramp = np.linspace(0, 1, points)
    curves = [PRCurve(str(i), 1, 1 - ramp, ramp, 0.5, 0.5) for i in range(count)]
    epochs, class_ap = tuple(map(float, range(validations))), np.full((validations, count), 0.5)
    confusion = np.eye(count + 1, dtype=np.int64)
    return Validation(0, 0, tuple(map(str, range(count))), 0.4, (), tuple(curves), confusion, epochs, class_ap)


@pytest.mark.parametrize(("classes", "points"), [(1, 101), (5, 101), (40, 15)])
def test_no_chart_has_more_rows_than_a_table_takes(classes: int, points: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_sink, "MOST_ROWS", 600)
    validation = many_classes(classes, 300, 100)
    names = validation.class_names
    curves = pr_chart(validation, names).table.data
    assert len(curves) == classes * points <= 600
    over_epochs = class_ap_chart(validation, names).table.data
    assert len(over_epochs) <= 600
    assert over_epochs[0][0] == 0
    assert over_epochs[-1][0] == 99
    cells = confusion_chart(validation.confusion, names).table.data
    assert len(cells) == min(600, (classes + 1) ** 2)
    assert {row[0] for row in cells if row[0] == row[1]} == {"(background)", *names}


def test_charts_of_nothing_can_be_drawn() -> None:
    nothing = many_classes(2, 0, 0)
    for chart in (pr_chart(nothing, ("a", "b")), class_ap_chart(nothing, ("a", "b"))):
        assert chart.table.data == []
