"""What TensorBoard holds, read back from its event files."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.interrupted import EPOCHS, fit, module
from ssd_lightning.training.callbacks.dashboard.callback import Dashboard
from ssd_lightning.training.callbacks.speed import Speed
from ssd_lightning.training.loggers import SturdyTensorBoardLogger


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> EventAccumulator:
    run = tmp_path_factory.mktemp("tensorboard") / "run"
    run.mkdir()
    logger = SturdyTensorBoardLogger(save_dir=str(run), name="", version="tensorboard")
    logger.log_hyperparams({"seed": 3, "optimizer": {"lr": 0.1}, "run": {"git_commit": "abc"}})
    model = module()
    model.class_names = ("a|cat", "dog")
    fit(
        run, callbacks=(Dashboard(every_n_validations=2, num_images=3), Speed()), logger=[logger],
        default_root_dir=run, model=model, log_every_n_steps=2,
    )  # fmt: skip
    read = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    return read.Reload()


def test_numbers_arrive(events: EventAccumulator) -> None:
    scalars = events.Tags()["scalars"]
    once = [
        "map",
        "map_50",
        "map_75",
        "map_small",
        "map_medium",
        "map_large",
        "map_11point",
        "map_area",
        "loss_box",
        "loss_cls",
    ]
    for name in [*once, "ap_11point/dog", "ap_11point/a|cat"]:
        assert len(events.Scalars(f"val/{name}")) == EPOCHS, name
    assert {"loss", "lr", "train/loss_box", "train/loss_cls", "speed/images_per_s", "speed/data_wait"} <= set(scalars)


def test_images_arrive_at_the_steps_of_their_scores(events: EventAccumulator) -> None:
    steps = [event.step for event in events.Scalars("val/map")][::2]
    for name in ("images", "pr_curves", "confusion_matrix", "class_ap"):
        images = events.Images(f"val/{name}")
        assert [event.step for event in images] == steps
        for event in images:
            pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("L"))
            assert pixels.std() > 5
    for name in ("train/batch", "train/matched_priors"):
        assert len(events.Images(name)) == 1


def test_the_table_of_classes_arrives(events: EventAccumulator) -> None:
    first, last = events.Tensors("val/ap_per_class/text_summary")
    lines = last.tensor_proto.string_val[0].decode().splitlines()
    assert first.step < last.step
    assert len(lines) == 4
    assert lines[2].startswith(r"| a\|cat | 11 | ")
    assert float(lines[3].split("|")[3]) == pytest.approx(events.Scalars("val/ap_11point/dog")[-1].value, abs=1e-4)


def test_settings_and_the_arrangement_of_curves_arrive(events: EventAccumulator) -> None:
    from tensorboard.plugins.custom_scalar import layout_pb2
    from tensorboard.plugins.hparams import plugin_data_pb2

    content: dict[str, Any] = events.summary_metadata["_hparams_/session_start_info"].plugin_data
    settings = plugin_data_pb2.HParamsPluginData.FromString(content.content).session_start_info.hparams  # type: ignore[attr-defined]
    assert settings["run/git_commit"].string_value == "abc"
    best = max(event.value for event in events.Scalars("val/map_11point"))
    assert events.Scalars("hp_metric")[-1].value == pytest.approx(best)
    (event,) = events.Tensors("custom_scalars__config__")
    shown = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    titles = {chart.title: list(chart.multiline.tag) for category in shown.category for chart in category.chart}
    assert titles["AP by class"] == ["val/ap_11point/.*"]
    assert "train/loss_box" in titles["losses"]
