"""Files for phones and small boards: what the converters give, and what is said when they fail."""

import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.commands import refused, run_command
from helpers.docs_commands import REPOSITORY
from helpers.exported_networks import TINY_FILES, check_same, check_threads, run_page_program, tiny_detector
from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.export import converters
from ssd_lightning.inference.export.converters import INSTALL_ONNX2TF, SAMPLE_IMAGES, write_ncnn, write_tflite
from ssd_lightning.inference.export.graph import describe_export
from ssd_lightning.inference.runtime.description import ExportDescription
from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.ops.coder import decode


def test_ncnn_sees_the_same(tmp_path: Path) -> None:
    detector = tiny_detector(neck="fpnlite")
    write_ncnn(detector, tmp_path / "detector.param")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"detector.{end}" for end in ("bin", "param", "param.json")
    ]
    check_same(detector, tmp_path / "detector.param")
    check_page_program(detector, "load_param", tmp_path)


def test_litert_sees_the_same() -> None:
    check_same(Detector.load(TINY_FILES / "tiny.safetensors"), TINY_FILES / "tiny.tflite")
    check_threads(Detector.load(TINY_FILES / "tiny.tflite"))


def check_page_program(detector: Detector, name: str, folder: Path) -> None:
    """Assert that the program of the page with this name in it gives the boxes of the checkpoint."""
    values, photo = run_page_program(name, folder, (70, 90))
    output = detector.run(detector.prepare([photo])[0])
    scores = output.class_logits[0].softmax(dim=1)
    boxes = cxcywh_to_xyxy(decode(output.box_offsets[0], output.priors_cxcywh, detector.postprocess.variances))
    np.testing.assert_allclose(values["scores"], scores.detach(), atol=1e-5)
    np.testing.assert_allclose(values["boxes"], boxes.detach(), atol=1e-5)


def test_the_program_of_the_page_for_litert(tmp_path: Path) -> None:
    for suffix in (".tflite", ".tflite.json"):
        shutil.copyfile(TINY_FILES / f"tiny{suffix}", tmp_path / f"detector{suffix}")
    check_page_program(Detector.load(TINY_FILES / "tiny.safetensors"), "Interpreter", tmp_path)


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `onnx2tf` on the PATH, which gives the prepared file without a look at its input."""

    def fake_onnx(detector: Detector, path: Path, **contents: Any) -> ExportDescription:
        path.write_bytes(b"onnx")
        return describe_export(detector, **contents)

    monkeypatch.setattr(converters, "write_onnx", fake_onnx)
    program = tmp_path / "bin" / "onnx2tf"
    program.parent.mkdir()
    write_program(
        program,
        f"assert os.path.getsize('detector.onnx') and os.path.getsize('{SAMPLE_IMAGES}')",
        "assert 'PYTHONPATH' not in os.environ",
        "os.mkdir('out')",
        f"shutil.copyfile({str(TINY_FILES / 'tiny.tflite')!r}, 'out/detector_float32.tflite')",
    )
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setenv("PYTHONPATH", "src")
    return program


def write_program(path: Path, *lines: str) -> None:
    path.write_text("\n".join([f"#!{sys.executable}", "import os, shutil, sys", *lines]) + "\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_tflite_is_verified_and_lies_beside_its_description(
    converter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["export", f"checkpoint={TINY_FILES / 'tiny.safetensors'}", "format=tflite", "latency=false", "images=3"]
    run_command(tmp_path, *given, "output=new/tiny.tflite")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["tiny.tflite", "tiny.tflite.json"]
    assert (tmp_path / "new/tiny.tflite.json").read_text().count('"image": "float32 [1, 32, 48, 3]') == 1
    assert "tiny.tflite.json describes, and leaves NMS to the program" in capsys.readouterr().out
    write_program(converter, "print('what it does'); print('it cannot', file=sys.stderr); sys.exit(3)")
    message = refused(capsys, tmp_path, *given, "output=new/other.tflite")
    assert all(part in message for part in ("onnx2tf", "exit code 3", "it cannot"))
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_a_file_that_is_not_what_it_should_be_keeps_the_name_unverified(
    converter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = Detector.load(TINY_FILES / "tiny.safetensors")
    for tensor in checkpoint.network.head.parameters():
        tensor.data.mul_(0.5)
    checkpoint.save("changed.ckpt")
    given = ["export", "checkpoint=changed.ckpt", "format=tflite", "latency=false", "images=3", "output=tiny.tflite"]
    with pytest.raises(SystemExit) as end:
        run_command(tmp_path, *given)
    assert end.value.code == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: tiny.unverified.tflite is not verified and keeps that name: ")
    assert "boxes differ by" in said
    for name in ("tiny.unverified.tflite", "tiny.unverified.tflite.json"):
        assert f"{name} exists" in refused(capsys, tmp_path, *given)
        (tmp_path / name).unlink()
    assert not list(tmp_path.glob("tiny.*"))


@pytest.mark.parametrize(("write", "program"), [(write_tflite, "onnx2tf"), (write_ncnn, "pnnx")])
def test_a_missing_converter_is_named(write, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigurationError, match=f"{program} is needed: .*install"):
        write(tiny_detector(), tmp_path / "a.param")


def test_the_page_installs_onnx2tf_as_the_message_does() -> None:
    assert INSTALL_ONNX2TF in (REPOSITORY / "docs" / "export.md").read_text()


@pytest.mark.parametrize("suffix", [".tflite", ".param"])
def test_damaged_files_are_named(suffix: str, tmp_path: Path) -> None:
    whole = dict.fromkeys((f"a{suffix}", "a.bin"), TINY_FILES / "tiny.tflite")
    whole[f"a{suffix}.json"] = TINY_FILES / "tiny.tflite.json"
    cut = whole[f"a{suffix}"].read_bytes()[:5000]
    damages = {f"a{suffix}": (None, b"no network", cut), f"a{suffix}.json": (None, b"[1]", b'{"a": 3}')}
    for damaged, contents in damages.items():
        for content in contents:
            for name, source in whole.items():
                shutil.copyfile(source, tmp_path / name)
            (tmp_path / damaged).unlink()
            if content is not None:
                (tmp_path / damaged).write_bytes(content)
            with pytest.raises(WeightsError, match=r"/a\."):
                Detector.load(tmp_path / f"a{suffix}")
