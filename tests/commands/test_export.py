"""`python -m ssd_lightning.export` of whole detectors, in one process and on untrained networks."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest
from omegaconf import OmegaConf

from helpers.commands import SMALL, output_of, refused, run_command
from helpers.exported_networks import TINY_FILES, check_same, noise, tiny_detector
from ssd_lightning.commands import export
from ssd_lightning.commands.export_notes import print_detectnet
from ssd_lightning.config import compose_config
from ssd_lightning.data.resize import Letterbox
from ssd_lightning.data.toy import TOY_CLASSES, write_toy_dataset
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.runtime.exported_files import Backend
from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.ops.coder import decode

TOY = ["data=toy", "data.num_train=6", "data.num_val=5", "data.num_test=2", "data.side_px=96", "data.num_workers=0"]
QUICK = ["latency=false", "images=3"]
TFLITE = f"checkpoint={TINY_FILES / 'tiny.tflite'}"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tiny_detector(class_names=TOY_CLASSES).save(tmp_path / "tiny.ckpt")
    return tmp_path / "tiny.ckpt"


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_an_input_size_other_than_the_checkpoints_is_refused(
    command: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"evaluate": TOY, "export": ["format=safetensors", "output=a.safetensors"]}[command]
    message = refused(capsys, tmp_path, command, "checkpoint=tiny.ckpt", *given, "image_size=[600,600]")
    assert message.startswith("error: image_size is [600, 600], but the input of tiny.ckpt is [")


def test_onnx_is_written_verified_and_used_like_a_checkpoint_and_by_detectnet(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """jetson-inference's detectNet.cpp, `preProcess` and `postProcessSSD_ONNX`; TensorRT wants fixed shapes."""
    write_toy_dataset(tmp_path / "datasets" / "toy", num_train=6, num_val=5, num_test=2, image_size_px=(96, 96))
    given = ["export", "checkpoint=tiny.ckpt", "format=onnx", "layout=detectnet", "output=new/a.onnx"]
    printed = output_of(tmp_path, *given, *QUICK, *TOY)
    detectnet = "--model=new/a.onnx --labels=new/a.labels.txt --input-blob=input_0"
    assert all(told in printed for told in ("0 without partner", "mAP .5:.95", detectnet))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.labels.txt", "a.onnx"]
    assert (tmp_path / "new/a.labels.txt").read_text().splitlines() == ["BACKGROUND", *TOY_CLASSES]

    scores = []
    for file in ("tiny.ckpt", "new/a.onnx"):
        run_command(tmp_path, "evaluate", f"checkpoint={file}", *TOY, "split=val", "output=scores.json")
        scores.append(json.loads((tmp_path / "scores.json").read_text()))
    for name in ("images", "map_11point", "map_area", "map"):
        assert scores[0][name] == pytest.approx(scores[1][name], abs=1e-6), name
    source = "source=datasets/toy/JPEGImages/val_00000.jpg"
    run_command(tmp_path, "predict", "checkpoint=new/a.onnx", source, "output=seen", "score_threshold=0.0")
    assert json.loads((tmp_path / "seen/predictions.json").read_text())["images"][0]["detections"]

    session, detector = onnxruntime.InferenceSession(tmp_path / "new/a.onnx"), Detector.load(checkpoint)
    assert [(end.name, end.type, end.shape) for end in session.get_inputs()] == [
        ("input_0", "tensor(float)", [1, 3, 32, 48])
    ]
    images = noise(1, (32, 48))
    scores, boxes = session.run(["scores", "boxes"], {"input_0": ((images / 255 - 0.5) / 0.5).numpy()})
    raw = detector.network(images)
    np.testing.assert_allclose(scores, raw.class_logits.softmax(2).detach(), atol=1e-5)
    expected = cxcywh_to_xyxy(decode(raw.box_offsets, raw.priors_cxcywh, detector.postprocess.variances))
    np.testing.assert_allclose(boxes, expected.detach(), atol=1e-5)
    for backend in get_args(Backend):
        check_same(detector, tmp_path / "new/a.onnx", backend=backend)
    (tmp_path / "new/a.onnx").unlink()
    assert "a.labels.txt exists" in refused(capsys, tmp_path, *given)
    Detector(detector.network, class_names=TOY_CLASSES, resize=Letterbox()).save(tmp_path / "tiny.ckpt")
    assert "letterboxes" in refused(capsys, tmp_path, *given[:-1], "output=b.onnx")


def test_other_formats_are_verified_too_and_a_graph_has_nms_in_place_of_soft_nms(tmp_path: Path) -> None:
    tiny_detector(class_names=TOY_CLASSES, soft_nms="gaussian").save(tmp_path / "soft.ckpt")
    for format_, has_graph in (("torchscript", True), ("safetensors", False)):
        given = ["export", "checkpoint=soft.ckpt", f"format={format_}"]
        printed = output_of(tmp_path, *given, f"output=a.{format_}", "images=3")
        assert "0 without partner" in printed
        for told in ("time, batch of 8", "resized: boxes", "in place of the checkpoint's postprocess.soft_nms=gauss"):
            assert (told in printed) == has_graph
        said = "With its postprocess.soft_nms=gaussian, which nms=false keeps, the checkpoint has mAP"
        assert (said in output_of(tmp_path, *given, f"output=b.{format_}", *QUICK, *TOY)) == has_graph
        loaded = Detector.load(tmp_path / f"a.{format_}")
        assert (loaded.class_names, loaded.postprocess.soft_nms) == (TOY_CLASSES, None if has_graph else "gaussian")


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"format": "torchscript"}, "output=a.onnx: a file of format=torchscript ends in .torchscript"),
        ({"format": "torchvision"}, "a.onnx: format=torchvision writes weights for torch.load; such a file needs"),
        ({"format": "tensorrt"}, "format is 'tensorrt'; it can be onnx, torchscript, safetensors"),
        ({"quantize": "int8"}, "data=voc_folder"),
        ({"quantize": "int4"}, "quantize is 'int4'"),
        ({"backend": "openvini"}, "backend is 'openvini'"),
        ({"format": "torchscript", "output": "a.pt", "backend": "openvino"}, "backend=openvino needs format=onnx"),
        ({"format": "torchscript", "output": "a.pt", "quantize": "int8"}, "quantize=int8 needs format=onnx"),
        ({"layout": "nchw"}, "layout is 'nchw'"),
        ({"format": "torchscript", "output": "a.pt", "layout": "detectnet"}, "layout=detectnet needs format=onnx"),
        ({"tolerance": -1}, "tolerance is -1"),
        ({"max_map_loss": 2}, "max_map_loss is 2"),
        ({"split": "tset"}, "split is 'tset'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], answer: str) -> None:
    config = compose_config("export", ["checkpoint=tiny.ckpt", "format=onnx", "output=a.onnx"])
    with pytest.raises(ConfigurationError, match=re.escape(answer)):
        export.check_settings(OmegaConf.merge(config, settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (["format=onnx", "output=a.pth"], "output=a.pth: a file of format=onnx ends in .onnx"),
        (["format=onnx", "output=tiny.ckpt/a.onnx"], "tiny.ckpt"),
        (["format=torchscript", "output=/proc/a.pt"], "output=/proc/a.pt: No such file or directory"),
        (["format=onnx", "output=there.onnx"], "output=there.onnx: there.onnx exists and is not replaced"),
        (["format=ncnn", "output=there.param"], "output=there.param: there.bin exists and is not replaced"),
        (["format=onnx", "output=left.onnx"], "left.unverified.onnx exists, from an export that was not verified"),
        (["format=onnx", "output=a.onnx", "checkpoint=nowhere.ckpt"], "nowhere.ckpt"),
        (["format=onnx", "output=a.onnx", "nms=false", "data=voc_folder", "data.root=nowhere"], "nowhere"),
        (["format=onnx", "output=a.onnx", TFLITE], "tiny.tflite is an exported network"),
        (["format=torchvision", "output=a.pth", TFLITE], "tiny.tflite is an exported network"),
    ],
)
def test_what_export_cannot_do(
    overrides: list[str], answer: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("there.onnx", "there.bin", "left.unverified.onnx"):
        (tmp_path / name).write_bytes(b"mine")
    given = [] if any(word.startswith("checkpoint=") for word in overrides) else ["checkpoint=tiny.ckpt"]
    assert answer in refused(capsys, tmp_path, "export", *given, *overrides)
    assert (tmp_path / "there.onnx").read_bytes() == b"mine"
    assert not list(tmp_path.glob("a*"))


def test_a_class_is_one_line_of_the_labels(tmp_path: Path) -> None:
    print_detectnet(tiny_detector(class_names=("a\nb", "c")), tmp_path / "a.onnx")
    assert (tmp_path / "a.labels.txt").read_text().splitlines() == ["BACKGROUND", r"a\nb", "c"]


def test_a_full_disk_is_said_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(detector: Detector, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_safetensors", fill)
    message = refused(capsys, tmp_path, "export", "checkpoint=tiny.ckpt", "format=safetensors", "output=a.safetensors")
    assert message == "error: output=a.safetensors: No space left on device"
    assert not list(tmp_path.glob("a*"))


def test_a_file_of_that_name_that_appears_meanwhile_is_not_replaced(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def verify(*_: object, **__: object) -> list[str]:
        (tmp_path / "a.safetensors").write_bytes(b"old")
        return []

    monkeypatch.setattr(export, "verify_file", verify)
    given = ["checkpoint=tiny.ckpt", "format=safetensors", "output=a.safetensors"]
    assert "the new file is a.unverified.safetensors" in refused(capsys, tmp_path, "export", *given)
    assert (tmp_path / "a.safetensors").read_bytes() == b"old"


@pytest.mark.slow
def test_int8_is_calibrated_on_training_images_and_costs_a_trained_network_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    quantize = export.quantize_int8
    monkeypatch.setattr(
        export, "quantize_int8", lambda *args: (given.append([x.shape for x in args[3]]), quantize(*args))
    )
    data = ["data.num_train=120", "data.num_val=20", "data.num_test=2"]
    changed = ("data.num_", "trainer.max_epochs", "trainer.check_val")
    small = [item for item in SMALL if not item.startswith(changed)]
    epochs = ["trainer.max_epochs=6", "trainer.check_val_every_n_epoch=6"]
    run_command(tmp_path, "train", *small, *data, *epochs, "hydra.run.dir=run", "logger=none")
    overrides = ["checkpoint=run", "format=onnx", "quantize=int8", "max_map_loss=0.03", "latency=false"]
    toy = ["data=toy", "data.side_px=96", "data.num_workers=0", *data]
    assert "mAP area" in output_of(tmp_path, "export", *overrides, "output=int8.onnx", *toy)
    assert given == [[(1, 64, 64, 3)] * 64]
    metadata = onnxruntime.InferenceSession(tmp_path / "int8.onnx").get_modelmeta().custom_metadata_map
    assert metadata["quantization"] == '"int8"'


@pytest.mark.slow
def test_the_command_as_a_process(checkpoint: Path, tmp_path: Path) -> None:
    overrides = ["checkpoint=tiny.ckpt", "format=onnx", "output=a.onnx", *QUICK]
    process = [sys.executable, "-m", "ssd_lightning.export", *overrides]
    done = subprocess.run(process, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a.onnx: " in done.stdout
    assert (tmp_path / "a.onnx").is_file()
