from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from helpers.choices import without_initialization
from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.models.backbones import (
    EfficientNetB3,
    MobileNetV1,
    MobileNetV2,
    MobileNetV3Large,
    ResNet,
    SqueezeNet,
    TimmBackbone,
)
from ssd_lightning.models.backbones.mobilenet_v1 import SEPARABLE
from ssd_lightning.models.config import from_config, to_config
from ssd_lightning.models.layers import pass_on_meta
from ssd_lightning.models.ssd import measure_grids
from ssd_lightning.ops.normalization import MEAN_127_STD_128

ALL = (4, 8, 16, 32)
# class, settings, strides by default, and channels of all its maps
LIGHT: dict[str, tuple[type[nn.Module], dict[str, Any], tuple[int, ...], dict[int, int]]] = {
    "mobilenet_v1": (MobileNetV1, {}, (16, 32), {4: 128, 8: 256, 16: 512, 32: 1024}),
    "mobilenet_v2": (MobileNetV2, {}, (16, 32), {4: 144, 8: 192, 16: 576, 32: 1280}),
    "mobilenet_v3": (MobileNetV3Large, {}, (16, 32), {4: 72, 8: 240, 16: 672, 32: 960}),
    "mobilenet_v3 block": (MobileNetV3Large, {"tap": "block"}, (16, 32), {4: 24, 8: 40, 16: 112, 32: 960}),
    "resnet34": (ResNet, {"depth": 34, "maps": "conv3_to_conv5"}, (8, 16, 32), {4: 64, 8: 128, 16: 256, 32: 512}),
    "resnet50": (ResNet, {"depth": 50, "maps": "conv3_to_conv5"}, (8, 16, 32), {4: 256, 8: 512, 16: 1024, 32: 2048}),
    "efficientnet_b3": (EfficientNetB3, {}, (8, 16, 32), {4: 32, 8: 48, 16: 136, 32: 384}),
    "timm": (TimmBackbone, {"name": "resnet18"}, (8, 16, 32), {4: 64, 8: 128, 16: 256, 32: 512}),
}


@pytest.mark.parametrize(
    ("name", "strides"),
    [*((name, ALL) for name in LIGHT), ("mobilenet_v2", (32,)), ("resnet34", (32,)), ("timm", (32,))],
)
def test_maps_have_the_strides_that_are_asked_for(name: str, strides: tuple[int, ...]) -> None:
    make, settings, _, channels = LIGHT[name]
    with torch.device("meta"), without_initialization():
        backbone = make(**settings, strides=list(strides))
    maps = pass_on_meta(backbone, (1, 3, 64, 96), training=False)
    wanted = [(1, channels[stride], 64 // stride, 96 // stride) for stride in strides]
    assert [tuple(feature.shape) for feature in maps] == wanted
    assert backbone.out_channels == tuple(channels[stride] for stride in strides)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v3 block", "resnet34", "timm"])
def test_a_finer_map_changes_none_of_the_others(name: str) -> None:
    make, settings, default, _ = LIGHT[name]
    plain = make(**settings).eval()
    with without_initialization():
        finer = from_config(to_config(make(**settings, strides=ALL))).eval()
    # ResNet's and timm's layers are joined up to the first map, so the names may differ, never their order.
    finer.load_state_dict(dict(zip(finer.state_dict(), plain.state_dict().values(), strict=True)))
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        maps = dict(zip(ALL, finer(images), strict=True))
        torch.testing.assert_close([maps[stride] for stride in default], plain(images), rtol=0, atol=0)
    with torch.device("meta"), without_initialization():
        assert make(**settings, strides=default).state_dict().keys() == plain.state_dict().keys()


def test_a_network_of_timm_with_four_maps_needs_no_indices() -> None:
    with torch.device("meta"), without_initialization():
        backbone = TimmBackbone(name="convnext_atto")
        assert TimmBackbone(name="convnext_atto", out_indices=[1, 2, 3]).out_channels == backbone.out_channels
    assert measure_grids(backbone, (64, 96)) == [(8, 12), (4, 6), (2, 3)]


def test_a_classifier_of_qfgaohaos_fills_mobilenet_v1(tmp_path: Path) -> None:
    def block(channels: int, out: int, stride: int) -> nn.Sequential:
        depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        pointwise = nn.Conv2d(channels, out, 1, bias=False)
        return nn.Sequential(depthwise, nn.BatchNorm2d(channels), nn.ReLU(), pointwise, nn.BatchNorm2d(out), nn.ReLU())

    first = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
    widths = pairwise([(32, 2), *SEPARABLE])
    theirs = nn.Sequential(first, *(block(before, out, stride) for (before, _), (out, stride) in widths)).eval()
    weights = {f"model.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({**weights, "fc.weight": torch.zeros(9, 1024)}, tmp_path / "v1.pth")
    with without_initialization():
        ours = MobileNetV1(weights=str(tmp_path / "v1.pth")).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images)[-1], theirs(images))
    assert ours.normalization == MEAN_127_STD_128


@pytest.mark.parametrize(
    ("make", "kind"), [(MobileNetV1, "qfgaohao's MobileNetV1"), (SqueezeNet, "torchvision's SqueezeNet")]
)
def test_weights_of_another_network_are_refused(make: Any, kind: str, tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2), "layer1.0.weight": torch.zeros(2)}, tmp_path / "other.pth")
    answer = rf"other\.pth: not {kind}: \d+ names or shapes differ, first \S+; the file begins with layer1\.0\.weight"
    with torch.device("meta"), pytest.raises(WeightsError, match=answer):
        make(weights=str(tmp_path / "other.pth"))


def test_squeezenet_has_finer_maps_before_its_poolings() -> None:
    images = torch.randn(1, 3, 96, 128)
    with torch.inference_mode():
        plain = SqueezeNet(ceil_mode=False).eval()
        finer = SqueezeNet(ceil_mode=False, strides=[4, 8, 16]).eval()
        finer.load_state_dict(plain.state_dict())
        maps = finer(images)
        torch.testing.assert_close(maps[2:], plain(images), rtol=0, atol=0)
    assert [tuple(feature.shape[1:]) for feature in maps[:2]] == [(128, 23, 31), (256, 11, 15)]
    assert finer.out_channels == (128, 256, 512, 512)


@pytest.mark.parametrize(
    ("name", "strides"),
    [("mobilenet_v2", [7]), ("mobilenet_v2", [8, 8, 32]), ("mobilenet_v2", "abc"), ("resnet34", []), ("timm", 8)],
)
def test_wrong_strides_are_answered_with_the_possible_ones(name: str, strides: Any) -> None:
    make, settings, _, _ = LIGHT[name]
    with torch.device("meta"), pytest.raises(ConfigurationError) as caught:
        make(**settings, strides=strides)
    possible = "2, 4, 8, 16 and 32" if make is TimmBackbone else "4, 8, 16 and 32"
    assert f"backbone.strides is {strides}; " in str(caught.value)
    assert f"has maps of stride {possible}: list those you want, the finest first" in str(caught.value)
