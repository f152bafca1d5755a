"""Checkpoints made to harm: no code runs, nothing large is allocated, one sentence names the file."""

import copy
import io
import operator
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.hostile_files import NO_FILES, check_message, damaged, refused
from helpers.no_warnings import no_warnings
from helpers.tiny_nets import tiny_net
from ssd_lightning.errors import WeightsError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.models.files import read_checkpoint


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("good") / "good.ckpt"
    Detector(tiny_net(num_classes=3), class_names=("a", "b", "c")).save(path)
    return torch.load(path)


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


class CallsOnLoading:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("key", ["detector", "state_dict", "epoch"])
def test_code_in_any_place_is_not_run(good, tmp_path: Path, key: str) -> None:
    code = {key: CallsOnLoading(os.system, f"touch {tmp_path / 'was_here'}")}
    assert "holds more than plain tensors" in refused(saved({**good, **code}, tmp_path / "bad.ckpt"), Detector.load)
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_bare_pickle_with_code_is_answered_in_one_sentence(tmp_path: Path, protocol: int) -> None:
    path, trace = tmp_path / "evil.pkl", tmp_path / "was_here"
    path.write_bytes(pickle.dumps({"state_dict": CallsOnLoading(os.mkdir, str(trace))}, protocol=protocol))
    with no_warnings():
        refused(path, read_checkpoint)
    assert not trace.exists()


HUGE = 10**9
NETWORK, LEVEL = "detector/network", "detector/network/levels/0"
EXTRAS = {"_target_": "ssd_lightning.models.extras.TinyExtras", "_partial_": True, "channels": [8]}
SHORTENED = {"_target_": "ssd_lightning.models.extras.ShortenedExtras", "_partial_": True, "extras": EXTRAS}
NO_NUMBERS = torch.zeros(1).expand(16, 4, 3, 3)  # a stride of 0 has any shape, and one number in the file
CHANGES: list[tuple[str, Any, str]] = [
    ("detector", 1, "does not describe a detector"),
    ("detector", {"network": {}}, "does not describe a detector"),
    (NETWORK, {}, "it describes a dict, not a network"),
    (NETWORK, {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}, "a Linear, not a network"),
    (f"{NETWORK}/_partial_", True, "not a network"),
    (f"{NETWORK}/no_such_argument", 1, "no_such_argument"),
    (f"{NETWORK}/num_classes", HUGE, ""),
    (f"{NETWORK}/num_classes", torch.zeros(2, 2), ""),
    (f"{NETWORK}/image_size", [HUGE, HUGE], ""),
    (f"{NETWORK}/image_size", [30_000, 30_000], "priors, more than 10,000,000"),
    (f"{NETWORK}/image_size", [-32, -48], ""),
    (f"{NETWORK}/image_size", [32], ""),
    (f"{NETWORK}/normalization", "IMAGENET", "its normalization is 'IMAGENET'"),
    (f"{NETWORK}/backbone", [1, 2], ""),
    (f"{NETWORK}/backbone", {"_target_": "os.system", "command": "touch was_here"}, "'os.system' is not a network"),
    (
        f"{NETWORK}/backbone",
        {"_target_": "ssd_lightning.models.backbones.vgg.VGG16", "weights": "IMAGENET1K_V1"},
        "VGG16 does not accept 'weights'",
    ),
    (f"{NETWORK}/backbone/channels", [HUGE, HUGE, HUGE], ""),
    (f"{NETWORK}/backbone/channels", [10**30, 4, 8], ""),
    (f"{NETWORK}/backbone/channels", [-4, 4, 8], ""),
    (f"{NETWORK}/extras", {**SHORTENED, "drop_last": HUGE}, ""),
    (f"{NETWORK}/extras", {**SHORTENED, "drop_last": -1}, ""),
    (f"{NETWORK}/levels", [], ""),
    (f"{NETWORK}/levels", {"_target_": "ssd_lightning.train.main"}, "'ssd_lightning.train.main' is not a network"),
    (f"{LEVEL}/min_size", -1.0, ""),
    (f"{LEVEL}/grid_size", [HUGE, HUGE], ""),
    (f"{LEVEL}/aspect_ratios", [float("nan")], ""),
    (f"{LEVEL}/aspect_ratios", ["2"], ""),
    ("detector/class_names", ["a", "b"], "names 2 classes for a network of 3 classes"),
    ("detector/class_names", "abc", "needs a list of class names, found 'abc'"),
    ("detector/class_names", [1, 2, 3], "needs a list of class names, found [1, 2, 3]"),
    ("detector/postprocess", {"unknown": 1}, "postprocess.unknown"),
    ("detector/postprocess", {"top_k": -1}, "postprocess.top_k is -1"),
    ("detector/postprocess", None, ""),
    ("detector/postprocess", {3: 4}, ""),
    ("detector/resize", {"kind": "crop"}, "resize is {'kind': 'crop'}; it can be"),
    ("state_dict", None, "does not fit its network in 60 of 60"),
    ("state_dict/net.head.box.1.bias", 3, "in 1 of 60 weights: head.box.1.bias is missing"),
    ("state_dict/net.head.extra", torch.zeros(1), "head.extra is unknown"),
    ("state_dict/net.head.cls.0.bias", torch.zeros(20), "cls.0.bias has shape (20,), the network needs (16,)"),
    ("state_dict/net.head.cls.0.weight", NO_NUMBERS, "cls.0.weight has fewer numbers than its shape (16, 4, 3, 3)"),
]


@pytest.mark.parametrize(("place", "value", "answer"), CHANGES)
def test_what_no_detector_has(
    good, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, value: object, answer: str
) -> None:
    """Neither does a description call anything, nor open or fetch weights, nor make a network of any size."""
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *args, **kwargs: pytest.fail("it was fetched"))
    monkeypatch.chdir(tmp_path)
    content = copy.deepcopy(good)
    *above, last = [int(key) if key.isdigit() else key for key in place.split("/")]
    reduce(operator.getitem, above, content)[last] = value
    # A table shows levels that do not fit.
    assert answer in refused(saved(content, tmp_path / "bad.ckpt"), Detector.load, one_line="levels" not in place)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.ckpt"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "bad.ckpt"
    # The second pickle asks for what it never stored.
    for content in (*NO_FILES, b"\x80\x02.", b"\x80\x02h\x07.", b"\x80\x02\x8a\x0a123."):
        path.write_bytes(content)
        refused(path, Detector.load)
    assert "holds a list, not a checkpoint" in refused(saved([1, 2], path), Detector.load)
    refused(saved({3: 4}, path), Detector.load)
    os.mkfifo(tmp_path / "pipe.ckpt")
    for odd in (tmp_path / "pipe.ckpt", Path("/dev/zero")):
        refused(odd, Detector.load)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_damage_anywhere_is_one_clear_error_or_none(zipped: bool, tmp_path: Path) -> None:
    file, path = io.BytesIO(), tmp_path / "damaged.ckpt"
    torch.save({"a": torch.zeros(3), "b": {"c": [1, 2.5]}}, file, _use_new_zipfile_serialization=zipped)
    whole = file.getvalue()
    cuts = [whole[: len(whole) * part // 30] for part in range(1, 30)]
    for content in (*cuts, *damaged(whole, 70)):
        path.write_bytes(content)
        try:
            assert isinstance(read_checkpoint(path), dict)
        except WeightsError as error:
            check_message(str(error), path)


def test_a_compressed_archive_is_not_blown_up(good, tmp_path: Path) -> None:
    plain, packed = saved({**good, "zeros": torch.zeros(4_000_000)}, tmp_path / "plain.ckpt"), tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    assert packed.stat().st_size < plain.stat().st_size / 50
    assert "compressed" in refused(packed, read_checkpoint)
    assert "zeros" in read_checkpoint(plain)


def test_a_deeply_nested_checkpoint(tmp_path: Path) -> None:
    nested: Any = []
    for _ in range(5000):
        nested = {"a": [nested]}
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        path = saved({"detector": {"network": nested, "class_names": [], "postprocess": {}}}, tmp_path / "deep.ckpt")
    finally:
        sys.setrecursionlimit(limit)
    refused(path, Detector.load)
