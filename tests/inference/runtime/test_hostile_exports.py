"""Exported files that were made to harm, or were harmed: one sentence that names the file, and nothing of it runs."""

import json
import random
import shutil
import sys
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
from ssd_lightning.errors import UserError, WeightsError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.export.files import write_safetensors
from ssd_lightning.inference.runtime.description import ExportDescription
from ssd_lightning.inference.runtime.network import errors_of
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


def refused(path: Path, read: Callable[[Path], object] = detect) -> str:
    with pytest.raises(WeightsError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 1000
    return message


Edit = Callable[[onnx.ModelProto], object]
Change = Callable[..., str]


@pytest.fixture
def change(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Change:
    """Change the good ONNX file and give the message with which it is refused, before any session is made."""

    def run(edit: Edit, *, reaches_session: bool = False) -> str:
        model = onnx.load(good / "detector.onnx")
        edit(model)
        path = tmp_path / "bad.onnx"
        path.write_bytes(model.SerializeToString())
        with monkeypatch.context() as patch:
            if not reaches_session:
                patch.setattr("onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("a session was made"))
            return refused(path)

    return run


@pytest.mark.parametrize("suffix", [".onnx", ".torchscript", ".safetensors"])
def test_damage_anywhere_is_one_clear_error_or_none(suffix: str, tmp_path: Path, good: Path) -> None:
    path, whole, rng = tmp_path / f"damaged{suffix}", (good / f"detector{suffix}").read_bytes(), random.Random(0)
    refused(path)  # it is missing
    parts = (whole[: len(whole) // 2], whole[:-9])
    for content in (b"", b"\0" * 1000, b"<html>404</html>", b"PK\x03\x04 and no more", *parts):
        path.write_bytes(content)
        refused(path)
    for _ in range(12):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            detect(path)
        except UserError as error:
            assert path.name in str(error)  # noqa: PT017  not all damage is seen
            assert "\n" not in str(error)  # noqa: PT017


@pytest.fixture(scope="module")
def metadata(good: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(good / "detector.onnx").metadata_props}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_names", "[]"),
        ("class_names", '["a", 3, "c"]'),
        ("class_names", "{not json"),
        ("class_names", "[" * 100_000),
        ("image_size", "[-32, 48]"),
        ("image_size", "[32.0, 48]"),
        ("image_size", "[1000000000, 1000000000]"),
        ("colour_mean", "[1, 2]"),
        ("colour_std", "[1, 0, 1]"),
        ("colour_std", "[1, NaN, 1]"),
        ("colour_order", '"GBR"'),
        ("preprocessing", "1"),
        ("nms", "null"),
        ("postprocess", '{"top_k": -1}'),
        ("postprocess", '{"no_such": 1}'),
        ("postprocess", "[]"),
        ("quantization", "8"),
        ("ssd_lightning", "1"),
        ("layout", '{"batch": 7}'),
        ("layout", '{"input_name": 3}'),
        ("layout", "[]"),
    ],
)
def test_wrong_metadata(key: str, value: str, metadata: dict[str, str]) -> None:
    assert key in metadata
    refused(Path("bad.onnx"), partial(ExportDescription.from_metadata, {**metadata, key: value}))


def lies(model: onnx.ModelProto, key: str, value: object) -> None:
    [entry] = (entry for entry in model.metadata_props if entry.key == key)
    entry.value = json.dumps(value)


def loses(model: onnx.ModelProto, *keys: str) -> None:
    kept = [entry for entry in model.metadata_props if keys and entry.key not in keys]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def keeps_outside(model: onnx.ModelProto, location: str) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def hides_outside(model: onnx.ModelProto, location: str) -> None:
    tensor = TensorProto(name="hidden", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    model.graph.node.append(helper.make_node("Constant", [], ["hidden"], value=tensor))


def has_node(model: onnx.ModelProto, *arguments: object, **settings: object) -> None:
    model.graph.node.append(helper.make_node(*arguments, **settings))


def has_function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("evil", "Own", [], [], [], [helper.make_opsetid("", 18)]))


@pytest.mark.parametrize(
    ("edit", "answer"),
    [
        (loses, "was not written by this package's export"),
        (lambda model: loses(model, "image_size"), "'image_size' is missing"),
        (partial(keeps_outside, location="../../etc/passwd"), "in another file, '../../etc/passwd'"),
        (partial(keeps_outside, location="weights.bin"), "in another file, 'weights.bin'"),
        (partial(hides_outside, location="../secret"), "'../secret'"),
        (lambda model: has_node(model, "Run", [], ["x"], domain="evil.ops"), "'evil.ops::Run'; it is not run"),
        (
            lambda model: has_node(model, "Loop", ["", ""], ["y"], body=helper.make_graph([], "body", [], [])),
            "branch or loop, Loop",
        ),
        (has_function, "defines its own functions, 'Own'"),
    ],
)
def test_an_onnx_file_of_others_or_with_more_than_a_network(edit: Edit, answer: str, change: Change) -> None:
    assert answer in change(edit)


@pytest.mark.parametrize(
    ("edit", "answer"),
    [
        (lambda model: lies(model, "preprocessing", False), "has the inputs"),
        (lambda model: lies(model, "nms", False), "has the outputs"),
        (lambda model: lies(model, "class_names", ["one"]), "labels or counts out of range"),
        (lambda model: has_node(model, "NoSuchOperator", [], ["x"]), "onnxruntime rejects it"),
    ],
)
def test_an_onnx_file_that_is_not_as_its_metadata_tell(edit: Edit, answer: str, change: Change) -> None:
    assert answer in change(edit, reaches_session=True)


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes | None], **added: bytes) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name, content in added.items():
            new.writestr(f"detector/{name}", content)
    return target


def test_torchscript_of_another_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubling(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    torch.jit.script(Doubling()).save(str(tmp_path / "other.pt"))
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was loaded"))
    assert "was not written by this package's export" in refused(tmp_path / "other.pt")


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
    path = rewritten(
        good / "detector.torchscript",
        tmp_path / "bad.torchscript",
        lambda name, content: content + b"\n" + code if name.endswith(".py") else content,
    )
    assert "which no exported network does; it was not run" in refused(path)


def test_torchscript_metadata_and_parts(good: Path, tmp_path: Path) -> None:
    source, target = good / "detector.torchscript", tmp_path / "bad.torchscript"
    for metadata in (b"[]", b"{", b'{"ssd_lightning": 1}', b"\xff"):
        refused(rewritten(source, target, lambda n, c, m=metadata: m if n.endswith(METADATA_FILE) else c))
    refused(rewritten(source, target, lambda name, content: None if name.endswith("data.pkl") else content))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("detector/zeros", b"\0" * 120_000_000)
    assert target.stat().st_size < 1_000_000
    assert "bytes in compressed parts" in refused(target)


def test_pt_is_looked_into(good: Path, tmp_path: Path) -> None:
    shutil.copy(good / "detector.torchscript", tmp_path / "a.pt")
    assert Detector.load(tmp_path / "a.pt").net.description.nms
    tiny_detector().save(tmp_path / "b.pt")
    assert Detector.load(tmp_path / "b.pt").network.num_classes == 3


@pytest.mark.parametrize(
    ("metadata", "answer"),
    [
        (None, "does not describe a detector"),
        *(({"detector": spec}, "") for spec in ("{", '"a"', "{}")),
        ({"detector": '{"network": {"_target_": "os.system"}, "class_names": [], "postprocess": {}}'}, "os.system"),
    ],
)
def test_safetensors_with_a_wrong_description(metadata: dict[str, str] | None, answer: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "bad.safetensors", metadata=metadata)
    assert answer in refused(tmp_path / "bad.safetensors")


def test_without_onnxruntime_one_sentence(faithful: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'ssd-lightning\[export\]'"):
        Detector.load(faithful)


def test_the_reason_that_a_runtime_gives_in_its_second_line_is_kept() -> None:
    reason = r"net failed: Exception from infer\.cpp:75: Check 'shape' failed"
    with pytest.raises(WeightsError, match=reason), errors_of("net failed"):
        raise RuntimeError("Exception from infer.cpp:75:\nCheck 'shape' failed")
