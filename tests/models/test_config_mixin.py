import collections
import dataclasses
import functools
import json

import numpy as np
import pytest
import torch
from torch import nn

from helpers.tiny_nets import ssd300, tiny_net
from ssd_lightning.errors import WeightsError
from ssd_lightning.models import SSD
from ssd_lightning.models.backbones import VGG16, TinyBackbone
from ssd_lightning.models.config import ConfigMixin, from_config, to_config
from ssd_lightning.ops.normalization import SUBTRACT_MEAN_BGR, TORCHVISION_SSD

three_classes = functools.partial(tiny_net, num_classes=3, ratios=(2, 3))


def assert_same_network(net: SSD, again: SSD) -> None:
    again.load_state_dict(net.state_dict())
    images = torch.randint(0, 256, (2, 3, *net.image_size), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(images), net.eval()(images), rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{}, {"normalization": SUBTRACT_MEAN_BGR, "clip_priors": True}])
def test_a_network_is_built_again(settings: dict[str, object]) -> None:
    net = three_classes(**settings)
    spec = to_config(net)
    plain = json.loads(json.dumps(spec))
    assert plain == spec  # nothing but dicts with words, lists and numbers
    again = from_config(plain)
    assert_same_network(net, again)
    assert to_config(again) == spec


def test_weights_are_spent_and_their_normalization_stays(monkeypatch) -> None:
    monkeypatch.setattr(VGG16, "_load", lambda self, weights, batch_norm: TORCHVISION_SSD)
    net = ssd300(weights="IMAGENET1K_FEATURES")
    spec = json.loads(json.dumps(to_config(net)))
    assert "IMAGENET1K_FEATURES" not in json.dumps(spec)
    assert "weights" not in spec["backbone"]
    monkeypatch.setattr(VGG16, "_load", None)
    with torch.device("meta"):
        again = from_config(spec)
    assert again.normalization == TORCHVISION_SSD
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in net.state_dict().items()}


def test_arguments_of_torchs_layers_are_all_kept() -> None:
    assert from_config(to_config(functools.partial(nn.PReLU, init=0.1)))().weight.item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.Tensor",
        "torch.nn.functional.relu",
        "torch.nn.Parameter",  # a tensor, no layer
        "torch.nnx.Linear",
        "ssd_lightning.losses.MultiBoxLoss",
        "ssd_lightning.models.ssd.measure_grids",
        "ssd_lightning.models.",
        "ssd_lightning.models.nothing.SSD",
        "ssd_lightning.models.ssd.Nothing",
        ".models.ssd.SSD",
        None,
        ["ssd_lightning.models.ssd.SSD"],
    ],
)
def test_what_is_no_network_part_is_not_built(target: object) -> None:
    good = to_config(three_classes())
    for spec in ({"_target_": target}, {"_target_": target, "_partial_": True}):
        for whole in (spec, {**good, "backbone": {**good["backbone"], "channels": [4, spec, 8]}}):
            with pytest.raises(WeightsError, match="checkpoint:"):
                from_config(whole)


@dataclasses.dataclass
class Foreign:
    """Imported into a trusted module, but defined elsewhere."""


def test_what_is_imported_into_a_trusted_module_is_not_built(monkeypatch) -> None:
    monkeypatch.setattr("ssd_lightning.models.ssd.Foreign", Foreign, raising=False)
    with pytest.raises(WeightsError, match=r"ssd_lightning\.models\.ssd\.Foreign' is not a network class"):
        from_config({"_target_": "ssd_lightning.models.ssd.Foreign"})


def test_trusted_parts_are_built() -> None:
    assert isinstance(from_config({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}), nn.Linear)
    assert isinstance(from_config({"_target_": "ssd_lightning.models.backbones.TinyBackbone"}), TinyBackbone)
    assert from_config([1, {"a": [None, 2.5, True, "word"]}]) == [1, {"a": [None, 2.5, True, "word"]}]


@pytest.mark.parametrize("change", [{"unknown": 1}, {"channels": 3}, {3: 4}])
def test_arguments_that_do_not_fit(change: dict[object, object]) -> None:
    with pytest.raises(WeightsError, match=r"cannot build ssd_lightning\.models\.backbones\.tiny\.TinyBackbone"):
        from_config({"_target_": "ssd_lightning.models.backbones.tiny.TinyBackbone", **change})


class Part(ConfigMixin, nn.Module):
    def __init__(self, width: int, *, weights: str | None = None, depth: int = 2, act: object = None) -> None:
        super().__init__()
        self.width, self.depth = width, depth


class Whole(Part):
    def __init__(self, name: str, *, parts: object = ()) -> None:
        super().__init__(len(name), weights="f", depth=7)
        self.parts = parts


PART, WHOLE = {"_target_": f"{__name__}.Part"}, {"_target_": f"{__name__}.Whole", "name": "abc"}


@pytest.mark.parametrize(
    ("value", "config"),
    [
        (Part(3), {**PART, "width": 3}),
        (Part(3, weights="secret", depth=4), {**PART, "width": 3, "depth": 4}),
        (Whole("abc", parts={"few": (Part(2), 0.5)}), {**WHOLE, "parts": {"few": [{**PART, "width": 2}, 0.5]}}),
        (Part(np.int64(3), act=np.ones(2)), {**PART, "width": 3, "act": [1.0, 1.0]}),
        (Part, {**PART, "_partial_": True}),
        (functools.partial(Part, width=3, weights="secret"), {**PART, "_partial_": True, "width": 3}),
    ],
)
def test_arguments_are_remembered_as_they_were_given(value: object, config: dict[str, object]) -> None:
    assert to_config(value) == config


@pytest.mark.parametrize(
    "value", [torch.zeros(1), object(), {1, 2}, len, functools.partial(Part, 3), collections.deque()]
)
def test_what_has_no_plain_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="no plain form"):
        to_config(Part(1, act=value))
