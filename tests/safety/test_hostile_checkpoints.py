"""Checkpoints made to harm: no code runs, nothing large is allocated, one sentence names the file."""

import copy
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.no_warnings import no_warnings
from helpers.tiny_nets import tiny_net
from ssd_lightning.errors import UserError, WeightsError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.models.files import read_checkpoint


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("good") / "good.ckpt"
    Detector(tiny_net(num_classes=3), class_names=("a", "b", "c")).save(path)
    return torch.load(path)


def load_changed(good: dict[str, Any], path: Path, change: Callable[[dict[str, Any]], Any]) -> Detector:
    content = copy.deepcopy(good)
    change(content)
    torch.save(content, path)
    return Detector.load(path)


def load_with(good: dict[str, Any], path: Path, **parts: Any) -> Detector:
    return load_changed(good, path, lambda content: content["detector"]["network"].update(parts))


class CallsOnLoading:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("key", ["detector", "state_dict", "epoch"])
@pytest.mark.parametrize("call", [(os.system, "touch {}"), (eval, "open('{}', 'w')")])
def test_code_in_any_place_is_not_run(good, tmp_path: Path, key: str, call: tuple[Callable[..., Any], str]) -> None:
    trace = tmp_path / "was_here"
    function, argument = call
    code = {key: CallsOnLoading(function, argument.format(trace))}
    with pytest.raises(WeightsError, match=r"bad\.ckpt holds more than plain tensors"):
        load_changed(good, tmp_path / "bad.ckpt", lambda content: content.update(code))
    assert not trace.exists()


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_bare_pickle_with_code_is_answered_in_one_sentence(tmp_path: Path, protocol: int) -> None:
    path, trace = tmp_path / "evil.pkl", tmp_path / "was_here"
    path.write_bytes(pickle.dumps({"state_dict": CallsOnLoading(os.mkdir, str(trace))}, protocol=protocol))
    with no_warnings(), pytest.raises(WeightsError, match=r"evil\.pkl"):
        read_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize("target", ["os.system", "ssd_lightning.train.main"])
@pytest.mark.parametrize("place", ["backbone", "levels"])
def test_what_a_spec_may_name(good, tmp_path: Path, place: str, target: str) -> None:
    hostile = {"_target_": target, "command": f"touch {tmp_path}/was_here"}
    with pytest.raises(WeightsError, match=rf"bad\.ckpt: .*'{target}' is not a network class"):
        load_with(good, tmp_path / "bad.ckpt", **{place: hostile})
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize("weights", ["IMAGENET1K_V1", "bad.ckpt"])
def test_a_spec_never_fetches_or_opens_weights(good, tmp_path: Path, monkeypatch, weights: str) -> None:
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *args, **kwargs: pytest.fail("it was fetched"))
    hostile = {"_target_": "ssd_lightning.models.backbones.vgg.VGG16", "weights": weights}
    with pytest.raises(WeightsError, match=r"bad\.ckpt: .*VGG16 does not accept 'weights'"):
        load_with(good, tmp_path / "bad.ckpt", backbone=hostile)


HUGE = 10**9


def shortened(extras: dict[str, Any], drop_last: int) -> dict[str, Any]:
    target = "ssd_lightning.models.extras.ShortenedExtras"
    return {"_target_": target, "_partial_": True, "extras": extras, "drop_last": drop_last}


SIZES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "channels": lambda net: net["backbone"].update(channels=[HUGE, HUGE, HUGE]),
    "channels beyond int64": lambda net: net["backbone"].update(channels=[10**30, 4, 8]),
    "negative channels": lambda net: net["backbone"].update(channels=[-4, 4, 8]),
    "classes": lambda net: net.update(num_classes=HUGE),
    "image": lambda net: net.update(image_size=[HUGE, HUGE]),
    "priors": lambda net: net.update(image_size=[30_000, 30_000]),
    "negative image": lambda net: net.update(image_size=[-32, -48]),
    "one side": lambda net: net.update(image_size=[32]),
    "boxes of no size": lambda net: net["levels"][0].update(min_size=-1.0),
    "a grid": lambda net: net["levels"][0].update(grid_size=[HUGE, HUGE]),
    "ratio nan": lambda net: net["levels"][0].update(aspect_ratios=[float("nan")]),
    "ratio of text": lambda net: net["levels"][0].update(aspect_ratios=["2"]),
    "classes of a tensor": lambda net: net.update(num_classes=torch.zeros(2, 2)),
    "no levels": lambda net: net.update(levels=[]),
    "backbone of a list": lambda net: net.update(backbone=[1, 2]),
    "backbone of another part": lambda net: net.update(backbone=net["levels"][0]),
    "normalization of text": lambda net: net.update(normalization="IMAGENET"),
    "dropped levels": lambda net: net.update(extras=shortened(net["extras"], HUGE)),
    "negative dropped levels": lambda net: net.update(extras=shortened(net["extras"], -1)),
    "an unknown argument": lambda net: net.update(no_such_argument=1),
    "a partial network": lambda net: net.update(_partial_=True),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_types_that_cannot_be(good, tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=r"bad\.ckpt") as caught:
        load_changed(good, tmp_path / "bad.ckpt", lambda content: SIZES[name](content["detector"]["network"]))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": ["a", "b"]},
        {"class_names": 3},
        {"class_names": "abc"},
        {"class_names": [1, 2, 3]},
        {"class_names": [["a"], ["b"], ["c"]]},
        {"postprocess": {"unknown": 1}},
        {"postprocess": {"top_k": -1}},
        {"postprocess": {"score_threshold": "high"}},
        {"postprocess": None},
        {"postprocess": {3: 4}},
    ],
)
def test_a_spec_of_wrong_types(good, tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"bad\.ckpt"):
        load_changed(good, tmp_path / "bad.ckpt", lambda content: content["detector"].update(change))


def test_a_small_file_with_a_huge_network(good, tmp_path: Path) -> None:
    """A tensor of stride 0 has any shape, and a byte in the file: shapes that agree do not make a network small."""

    def change(content: dict[str, Any]) -> None:
        spec, weights = content["detector"], content["state_dict"]
        spec["network"].update(num_classes=10**5)
        spec["class_names"] = ["a"] * 10**5
        for name, tensor in weights.items():
            if ".cls" in name or "class" in name:
                cells = tensor.shape[0] // 4
                weights[name] = torch.zeros(1).expand(cells * (10**5 + 1), *tensor.shape[1:])

    path = tmp_path / "bad.ckpt"
    with pytest.raises(WeightsError, match=r"bad\.ckpt"):
        load_changed(good, path, change)


def test_a_compressed_archive_is_not_blown_up(good, tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.ckpt", tmp_path / "bomb.ckpt"
    torch.save({**good, "zeros": torch.zeros(4_000_000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    assert packed.stat().st_size < plain.stat().st_size / 50
    with pytest.raises(WeightsError, match=r"bomb\.ckpt .*compressed"):
        read_checkpoint(packed)
    assert "zeros" in read_checkpoint(plain)


def test_a_deeply_nested_checkpoint(tmp_path: Path) -> None:
    nested: Any = []
    for _ in range(5000):
        nested = {"a": [nested]}
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        torch.save({"detector": {"network": nested, "class_names": [], "postprocess": {}}}, tmp_path / "deep.ckpt")
    finally:
        sys.setrecursionlimit(limit)
    with pytest.raises(WeightsError, match=r"deep\.ckpt"):
        Detector.load(tmp_path / "deep.ckpt")


def test_a_checkpoint_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ckpt")
    for path in (tmp_path / "pipe.ckpt", Path("/dev/zero")):
        with pytest.raises(WeightsError, match=path.name):
            Detector.load(path)
