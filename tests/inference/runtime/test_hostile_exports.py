"""Exported files that were made to harm, or were harmed: one sentence that names the file, and nothing of it runs."""

import json
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file

from helpers.exported_networks import noise, tiny_detector
from helpers.hostile_files import NO_FILES, check_message, damaged, refused
from ssd_lightning.errors import UserError, WeightsError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.export.files import write_safetensors
from ssd_lightning.inference.runtime import torchscript_network
from ssd_lightning.inference.runtime.description import ExportDescription, errors_of
from ssd_lightning.inference.runtime.torchscript_network import METADATA_FILE


@pytest.fixture(scope="module")
def good(faithful: Path, scripted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one good file of each kind."""
    folder = tmp_path_factory.mktemp("good")
    for path in (faithful, scripted):
        shutil.copy(path, folder)
    write_safetensors(tiny_detector(), folder / "detector.safetensors")
    return folder


def detect(path: Path) -> object:
    return Detector.load(path).detect(noise(1, (32, 48)))


@pytest.mark.parametrize("suffix", [".onnx", ".torchscript", ".safetensors"])
def test_damage_anywhere_is_one_clear_error_or_none(suffix: str, tmp_path: Path, good: Path) -> None:
    path, whole = tmp_path / f"damaged{suffix}", (good / f"detector{suffix}").read_bytes()
    refused(path, detect)  # it is missing
    for content in (*NO_FILES, whole[: len(whole) // 2], whole[:-9]):
        path.write_bytes(content)
        refused(path, detect)
    for content in damaged(whole, 12):
        path.write_bytes(content)
        try:
            detect(path)
        except UserError as error:
            check_message(str(error), path)


@pytest.fixture(scope="module")
def metadata(good: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(good / "detector.onnx").metadata_props}


WRONG = {
    "class_names": ("[]", '["a", 3, "c"]', "{not json", "[" * 100_000),
    "image_size": ("[-32, 48]", "[1000000000, 1000000000]"),
    "colour_mean": ("[1, 2]", "1", f"[1, 2, {10**400}]"),
    "colour_std": ("[1, 0, 1]", "[1, NaN, 1]"),
    "colour_order": ('"GBR"',),
    "preprocessing": ("1",),
    "nms": ("null",),
    "postprocess": ('{"top_k": -1}', "[]"),
    "quantization": ("8",),
    "ssd_lightning": ("1",),
    "layout": ('{"batch": 7}', '{"input_name": 3}', "[]", '{"name": ""}'),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_wrong_metadata(key: str, value: str, metadata: dict[str, str]) -> None:
    assert key in metadata
    refused(Path("bad.onnx"), partial(ExportDescription.from_metadata, {**metadata, key: value}))


def tells(model: onnx.ModelProto, **changes: object) -> None:
    """Change the metadata; None removes an entry."""
    told = {entry.key: entry.value for entry in model.metadata_props}
    told |= {key: json.dumps(value) for key, value in changes.items()}
    del model.metadata_props[:]
    helper.set_model_props(model, {key: text for key, text in told.items() if changes.get(key, "") is not None})


def outside(tensor: TensorProto, location: str) -> TensorProto:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def has_node(model: onnx.ModelProto, *arguments: object, **settings: object) -> None:
    model.graph.node.append(helper.make_node(*arguments, **settings))


HIDDEN = outside(TensorProto(name="hidden", data_type=1, dims=[1]), "../secret")
LOOP = helper.make_graph([], "body", [], [])
FUNCTION = helper.make_function("evil", "Own", [], [], [], [helper.make_opsetid("", 18)])


SAFE = {
    "has the inputs": partial(tells, preprocessing=False),
    "has the outputs": partial(tells, nms=False),
    "labels or counts out of range": partial(tells, class_names=["one"]),
    "onnxruntime rejects it": lambda model: has_node(model, "NoSuchOperator", [], ["x"]),
}
"""What reaches onnxruntime: files that are not as their metadata tell."""


@pytest.mark.parametrize(
    ("edit", "answer"),
    [
        *((edit, answer) for answer, edit in SAFE.items()),
        (partial(tells, ssd_lightning=None), "was not written by this package's export"),
        (partial(tells, image_size=None), "'image_size' is missing"),
        (lambda model: outside(model.graph.initializer[0], "../../etc/passwd"), "in another file, '../../etc/passwd'"),
        (lambda model: has_node(model, "Constant", [], ["hidden"], value=HIDDEN), "'../secret'"),
        (lambda model: has_node(model, "Run", [], ["x"], domain="evil.ops"), "'evil.ops::Run'; it is not run"),
        (lambda model: has_node(model, "Loop", ["", ""], ["y"], body=LOOP), "branch or loop, Loop"),
        (lambda model: model.functions.append(FUNCTION), "defines its own functions, 'Own'"),
    ],
)
def test_an_onnx_file_of_others_or_with_more_than_a_network(
    edit: Callable[[onnx.ModelProto], object],
    answer: str,
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = onnx.load(good / "detector.onnx")
    edit(model)
    (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
    if answer not in SAFE:
        monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("a session was made"))
    assert answer in refused(tmp_path / "bad.onnx", detect)


def rewritten(folder: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    with zipfile.ZipFile(folder / "detector.torchscript") as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def test_torchscript_of_another_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.jit.script(torch.nn.ReLU()).save(str(tmp_path / "other.pt"))
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was loaded"))
    assert "was not written by this package's export" in refused(tmp_path / "other.pt", detect)


@pytest.mark.parametrize(
    "code",
    [
        b"torch.from_file('/etc/passwd', False, 10)",
        b"x = '/etc/passwd'.from_file(False, 10)",
        b"torch.save(x, '/tmp/x')",
        b"ops.evil.run(x)",
        b"__torch__.torch.classes.evil.Thing",
    ],
)
def test_torchscript_with_code_of_others(
    code: bytes, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was loaded"))
    add = lambda name, content: content + b"\n" + code if name.endswith(".py") else content  # noqa: E731
    path = rewritten(good, tmp_path / "bad.torchscript", add)
    assert "which no exported network does; it was not run" in refused(path, detect)


def test_torchscript_metadata_and_parts(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "bad.torchscript"
    for metadata in (b"[]", b"3", b"{", b'{"ssd_lightning": 1}', b"\xff"):
        refused(rewritten(good, target, lambda n, c, m=metadata: m if n.endswith(METADATA_FILE) else c), detect)
    refused(rewritten(good, target, lambda name, content: None if name.endswith("data.pkl") else content), detect)
    monkeypatch.setattr(torchscript_network, "MOST_PACKED_BYTES", 1_000_000)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("detector/zeros", b"\0" * 1_200_000)
    assert target.stat().st_size < 10_000
    assert "1,200,000 bytes in compressed parts" in refused(target, detect)


def test_pt_is_looked_into(good: Path, tmp_path: Path) -> None:
    shutil.copy(good / "detector.torchscript", tmp_path / "a.pt")
    assert Detector.load(tmp_path / "a.pt").net.description.nms
    tiny_detector().save(tmp_path / "b.pt")
    assert Detector.load(tmp_path / "b.pt").network.num_classes == 3


@pytest.mark.parametrize(
    ("metadata", "answer"),
    [
        (None, "does not describe a detector"),
        ({"detector": "{}"}, "does not describe a detector"),
        ({"detector": "{"}, "is damaged or not a checkpoint"),
    ],
)
def test_safetensors_with_a_wrong_description(metadata: dict[str, str] | None, answer: str, tmp_path: Path) -> None:
    """`test_hostile_checkpoints` has what a description may not name."""
    save_file({"a": torch.zeros(1)}, tmp_path / "bad.safetensors", metadata=metadata)
    assert answer in refused(tmp_path / "bad.safetensors", detect)


def test_the_reason_that_a_runtime_gives_in_its_second_line_is_kept() -> None:
    reason = r"net failed: Exception from infer\.cpp:75: Check 'shape' failed"
    with pytest.raises(WeightsError, match=reason), errors_of("net failed"):
        raise RuntimeError("Exception from infer.cpp:75:\nCheck 'shape' failed")
