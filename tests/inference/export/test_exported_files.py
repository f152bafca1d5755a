"""What is written sees what was meant: networks, batches, and what is inside."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from helpers import pixels
from helpers.exported_networks import (
    CLASS_NAMES,
    TINY_FILES,
    check_same,
    check_threads,
    composed_detector,
    exported,
    noise,
    run_page_program,
    tiny_detector,
)
from ssd_lightning import __version__
from ssd_lightning.data.resize import Letterbox, ResizeMode, Stretch
from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.export.files import write_onnx, write_safetensors
from ssd_lightning.inference.export.graph import ExportGraph, describe_export
from ssd_lightning.inference.export.graph_nms import graph_nms
from ssd_lightning.inference.runtime.exported_files import Backend
from ssd_lightning.inference.runtime.torchscript_network import METADATA_FILE, quiet_jit
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.models.weights import load_pretrained

TINY: dict[str, dict[str, Any]] = {
    "few": {"neck": "fpnlite", "score_threshold": 0.3, "max_detections": 5, "top_k": 3, "box_voting": 0.3},
    "class_agnostic": {"neck": "fpn", "class_agnostic": True, "clip_first": True, "variances": [0.2, 0.1]},
    "nms outside": {"nms": False},
    "soft_nms outside": {"soft_nms": "linear", "nms": False},
}


@pytest.mark.parametrize("name", TINY)
def test_torchscript_sees_the_same(name: str, tmp_path: Path) -> None:
    settings = dict(TINY[name])
    nms = settings.pop("nms", True)
    detector = tiny_detector(**settings)
    images, weight = noise(2, detector.image_size), next(detector.network.extractor.parameters())
    before = detector.detect(images)
    path = exported(detector, tmp_path, ".torchscript", nms=nms)
    assert weight.is_contiguous(memory_format=torch.channels_last)  # it is left as it was
    torch.testing.assert_close(detector.detect(images), before, rtol=0, atol=0)
    check_same(detector, path)
    assert Detector.load(path).detect(noise(0, detector.image_size)) == []


@pytest.mark.parametrize("backend", get_args(Backend))
def test_onnx_sees_the_same(backend: Backend, faithful: Path) -> None:
    check_same(tiny_detector(), faithful, backend=backend)
    loaded = Detector.load(faithful, backend=backend)
    assert loaded.detect(noise(0, loaded.image_size)) == []
    check_threads(loaded)


@pytest.mark.slow
@pytest.mark.parametrize("resize", [Stretch(), Letterbox()], ids=lambda mode: type(mode).__name__)
@pytest.mark.parametrize("nms", [True, False])
@pytest.mark.parametrize("preprocessing", [True, False])
def test_every_kind_of_onnx_file_in_every_runtime_on_images_of_any_size(
    preprocessing: bool, nms: bool, resize: ResizeMode, tmp_path: Path
) -> None:
    detector = tiny_detector()
    detector.resize = resize
    path = exported(detector, tmp_path, ".onnx", preprocessing=preprocessing, nms=nms)
    sizes_px = [(32, 48), (60, 40), (20, 300), (7, 5)]
    images = [pixels.noise(*size_px) for size_px in sizes_px]
    for backend in get_args(Backend):
        loaded = Detector.load(path, backend=backend)
        for batch_size in (1, 3):
            for ours, theirs in zip(detector(images), loaded(images, batch_size=batch_size), strict=True):
                assert (theirs.names, len(theirs) > 3) == (ours.names, True)
                np.testing.assert_allclose(theirs.boxes_xyxy_px, ours.boxes_xyxy_px, atol=2e-3)
                np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-5)


def test_a_missing_runtime_is_named_and_one_that_runs_nothing_but_onnx(
    faithful: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("onnxruntime", "openvino", "ai_edge_litert", "ai_edge_litert.interpreter", "ncnn"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("a.param", "a.bin", "best.ckpt"):
        (tmp_path / name).touch()
    shutil.copyfile(TINY_FILES / "tiny.tflite.json", tmp_path / "a.param.json")
    for path, backend, answer in (
        (faithful, "onnx", r".*ssd-lightning\[export\]"),
        (faithful, "openvino", r".*ssd-lightning\[openvino\]"),
        (TINY_FILES / "tiny.tflite", "onnx", r".*ssd-lightning\[litert\]"),
        (tmp_path / "a.param", "onnx", r".*ssd-lightning\[ncnn\]"),
        (tmp_path / "best.ckpt", "openvino", "; `export format=onnx` writes one"),
        (tmp_path / "best.ckpt", "opencv", "; `export format=onnx` writes one"),
    ):
        with pytest.raises(ConfigurationError, match=rf"{path.name}{answer}"):
            Detector.load(path, backend=backend)


NETWORKS = {
    "backbone=vgg16 backbone.weights=null": ".onnx .torchscript",
    "model=ssdlite320 backbone=mobilenet_v3_large backbone.weights=null": ".onnx .torchscript",
    "backbone=resnet34 backbone.weights=null neck=fpn": ".onnx",
    "model=lufficc_efficientnet_b3": ".onnx",
    "model=fpnlite320 backbone.weights=null": ".onnx",
    "experiment=finetune": ".param .tflite",
    "experiment=ssd300_vgg16_voc0712_paper": ".param .tflite",
    "experiment=fpnlite320_mobilenet_v2_coco": ".tflite",
}
"""Others have layers of the same kinds. `test_ncnn_sees_the_same` has a small FPNLite."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "overrides"), [(suffix, one) for one, suffixes in NETWORKS.items() for suffix in suffixes.split()]
)
def test_networks_of_the_configurations(
    suffix: str, overrides: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Before NMS: random weights of deep networks see the same everywhere, and any of equal boxes may stay."""
    if suffix == ".param" and "vgg16" in overrides:
        request.applymarker(pytest.mark.xfail(reason="pnnx loses the axis of `L2Norm`'s sum", strict=True))
    if suffix == ".tflite" and shutil.which("onnx2tf") is None:
        pytest.skip("onnx2tf is not on the PATH")
    detector = composed_detector(*overrides.split())
    net = Detector.load(exported(detector, tmp_path, suffix, nms=False)).net
    graph = ExportGraph(detector.network, net.description, graph_nms)
    for batch in {1, net.description.layout.batch or 2}:
        images = noise(batch, detector.image_size, seed=batch)
        inputs = net.description.as_input(images)
        with torch.inference_mode():
            found = net.run(inputs)
            expected = graph(inputs if net.description.preprocessing else net.description.normalization(images.float()))
            torch.testing.assert_close(tuple(found), expected, rtol=1e-4, atol=1e-5)
        assert found[1][..., 1:].max() > 0.2


def test_an_image_of_one_colour(faithful: Path) -> None:
    """Neighbouring cells give equal scores up to rounding: any of them may stay, with the same score."""
    detector, loaded = tiny_detector(), Detector.load(faithful)
    images = torch.full((2, 3, *detector.image_size), 90, dtype=torch.uint8)
    for ours, theirs in zip(detector.detect(images), loaded.detect(images), strict=True):
        torch.testing.assert_close(theirs["scores"][:5], ours["scores"][:5], rtol=0, atol=1e-5)
        assert theirs["labels"][:5].tolist() == ours["labels"][:5].tolist()


def test_onnx_as_its_users_see_it(faithful: Path) -> None:
    session = onnxruntime.InferenceSession(faithful)
    assert [(end.name, end.type, end.shape) for end in session.get_inputs()] == [
        ("images", "tensor(uint8)", ["batch", "height", "width", 3])
    ]
    assert {end.name: end.shape for end in session.get_outputs()} == {
        "boxes": ["batch", 200, 4], "scores": ["batch", 200], "labels": ["batch", 200], "num_detections": ["batch"],
    }  # fmt: skip
    told = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert {name: told[name] for name in ("ssd_lightning", "class_names", "image_size", "colour_order")} == {
        "ssd_lightning": __version__, "class_names": list(CLASS_NAMES), "image_size": [32, 48], "colour_order": "BGR",
    }  # fmt: skip
    assert PostProcess(**told["postprocess"]) == tiny_detector().postprocess
    assert told["inputs"].keys() == {"images"}
    assert list(told["outputs"]) == [end.name for end in session.get_outputs()]
    model = onnx.load(faithful)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


def test_the_program_of_the_page_finds_the_same_in_a_photo_that_is_turned(faithful: Path, tmp_path: Path) -> None:
    detector = tiny_detector()
    shutil.copyfile(faithful, tmp_path / "detector.onnx")
    values, photo = run_page_program("InferenceSession", tmp_path, (48, 32))  # the network's size when it is upright
    [expected] = detector.detect(detector.prepare([photo])[0])
    [count] = values["num"]
    np.testing.assert_allclose(values["boxes"][0, :count], expected["boxes"], atol=1e-5)
    assert values["labels"][0, :count].tolist() == expected["labels"].tolist()


def test_what_has_to_be_prepared_is_in_the_metadata(tmp_path: Path) -> None:
    """A user without this package: numpy, torch and the file."""
    detector = tiny_detector()
    path = exported(detector, tmp_path, ".torchscript", preprocessing=False)
    extra = {METADATA_FILE: ""}
    with quiet_jit():
        script = torch.jit.load(path, _extra_files=extra)
    told = {name: json.loads(text) for name, text in json.loads(extra[METADATA_FILE]).items()}
    image = pixels.noise(70, 50)
    resized = cv2.resize(image, told["image_size"][::-1])
    colours = (resized - np.array(told["colour_mean"])) / np.array(told["colour_std"])
    colours = colours[..., ::-1] if told["colour_order"] == "BGR" else colours
    boxes, scores, labels, [count] = script(torch.from_numpy(colours.transpose(2, 0, 1)[None].astype(np.float32)))
    (expected,) = detector.detect(torch.from_numpy(resized).permute(2, 0, 1)[None])
    found = {"boxes": boxes[0, :count], "scores": scores[0, :count], "labels": labels[0, :count]}
    torch.testing.assert_close(found, dict(expected), rtol=0, atol=1e-5)
    assert not boxes[0, count:].any()
    assert not labels[0, count:].any()


@pytest.mark.parametrize("size_px", [(32, 48), (64, 96), (100, 30), (31, 200), (7, 5), (1, 1)])
def test_the_resize_inside_is_opencvs_but_for_rounding(size_px: tuple[int, int]) -> None:
    detector = tiny_detector()
    description = describe_export(detector, preprocessing=True, nms=True)
    graph = ExportGraph(detector.network, description, graph_nms)
    image = pixels.noise(*size_px)
    expected = torch.from_numpy(cv2.resize(image, (48, 32))).permute(2, 0, 1)[None]
    difference = (graph.prepared(torch.from_numpy(image)[None]) - detector.network.normalization(expected)).abs().max()
    assert difference < (1 if size_px != (32, 48) else 1e-5)


def test_a_graph_cannot_contain_soft_nms(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"postprocess\.soft_nms is 'linear'.*nms=false"):
        exported(tiny_detector(soft_nms="linear"), tmp_path, ".torchscript")


def test_safetensors_hold_the_very_detector(tmp_path: Path) -> None:
    detector, path = tiny_detector(score_threshold=0.05), tmp_path / "tiny.safetensors"
    write_safetensors(detector, path)
    loaded = Detector.load(path)
    assert loaded.spec() == detector.spec()
    torch.testing.assert_close(dict(loaded.network.state_dict()), dict(detector.network.state_dict()), rtol=0, atol=0)
    for parameter in loaded.network.parameters():
        torch.nn.init.zeros_(parameter)
    assert not load_pretrained(loaded.network, path).reinitialised  # its names are the network's own


def test_an_exported_file_is_no_checkpoint(scripted: Path, tmp_path: Path) -> None:
    loaded = Detector.load(scripted)
    for use, inside in ((loaded.save, {}), (partial(write_onnx, loaded), {"preprocessing": True, "nms": True})):
        with pytest.raises(WeightsError, match=r"detector\.torchscript is an exported network"):
            use(tmp_path / "a", **inside)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigurationError, match="precision is 'bfloat16'"):
        Detector.load(scripted, precision="bfloat16")
    with pytest.raises(ValueError, match="made for"):
        loaded.detect(noise(1, (32, 32)))


def test_settings_of_nms_can_be_changed_if_it_is_outside(scripted: Path) -> None:
    outside = Detector.load(TINY_FILES / "tiny.tflite")
    outside.use_postprocess(iou_threshold=0.3)
    assert outside.postprocess.iou_threshold == 0.3
    inside = Detector.load(scripted)
    inside.use_postprocess()
    with pytest.raises(ConfigurationError, match=r"iou_threshold cannot be .*\.torchscript has its NMS"):
        inside.use_postprocess(iou_threshold=0.3)
