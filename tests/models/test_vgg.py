import math
import pickle
from pathlib import Path
from unittest.mock import Mock
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, vgg16_bn

from ssd_lightning.errors import WeightsError
from ssd_lightning.models.backbones import VGG16, vgg
from ssd_lightning.ops.normalization import IMAGENET, SUBTRACT_MEAN_RGB, TORCHVISION_SSD

CHANNELS = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
FEATURES = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


def overlapping(*shape: int, seed: int) -> Tensor:
    """Random numbers that share memory: 400 MB of fc6 in 2 MB, and any two entries that could be mixed up differ."""
    strides = [97, 1] if len(shape) == 2 else [101, 7, 3, 1][: len(shape)]
    length = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return torch.rand(length, generator=torch.Generator().manual_seed(seed)).as_strided(shape, strides)


@pytest.fixture(scope="module")
def torchvision_state() -> dict[str, Tensor]:
    state = {}
    for index, before, channels in zip(FEATURES, [3, *CHANNELS[:-1]], CHANNELS, strict=True):
        state[f"features.{index}.weight"] = overlapping(channels, before, 3, 3, seed=index)
        state[f"features.{index}.bias"] = overlapping(channels, seed=100 + index)
    for index, (before, width) in {0: (512 * 7 * 7, 4096), 3: (4096, 4096), 6: (4096, 1000)}.items():
        state[f"classifier.{index}.weight"] = overlapping(width, before, seed=200 + index)
        state[f"classifier.{index}.bias"] = overlapping(width, seed=300 + index)
    return state


@pytest.fixture(autouse=True)
def _no_weights_to_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time, and are replaced here."""
    monkeypatch.setattr(vgg, "init_he", lambda module: None)


@pytest.fixture
def saved(tmp_path: Path):
    def save(content: object) -> str:
        torch.save(content, tmp_path / "vgg16.pth")
        return str(tmp_path / "vgg16.pth")

    return save


def is_refused(weights: str, answer: str, **settings: bool) -> None:
    with torch.device("meta"), pytest.raises(WeightsError, match=answer):  # no time for values that are not looked at
        VGG16(weights=weights, **settings)


def convolutions(backbone: VGG16) -> list[nn.Conv2d]:
    return [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d)]


def assert_features_equal(backbone: VGG16, state: dict[str, Tensor]) -> None:
    for layer, index in zip(convolutions(backbone)[:13], FEATURES, strict=True):
        assert torch.equal(layer.weight, state[f"features.{index}.weight"])
        assert torch.equal(layer.bias, state[f"features.{index}.bias"])


@pytest.mark.parametrize("batch_norm", [False, True])
def test_maps_are_those_of_the_paper(batch_norm: bool) -> None:
    with torch.device("meta"):
        backbone = VGG16(batch_norm=batch_norm).eval()
        maps = backbone(torch.empty(2, 3, 300, 300))
    assert [tuple(feature.shape) for feature in maps] == [(2, 512, 38, 38), (2, 1024, 19, 19)]
    assert backbone.out_channels == (512, 1024)
    assert backbone.normalization == IMAGENET
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in backbone.modules()) == 15 * batch_norm
    conv6 = convolutions(backbone)[13]
    assert (conv6.kernel_size, conv6.dilation, conv6.padding, conv6.stride) == ((3, 3), (6, 6), (6, 6), (1, 1))


def test_only_the_head_sees_the_normalised_map() -> None:
    backbone = VGG16().eval()
    images = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        conv4_3, conv7 = backbone(images)
        backbone.norm.weight *= 3
        scaled, unchanged = backbone(images)
    torch.testing.assert_close(conv4_3.norm(dim=1), torch.full((1, 4, 4), 20.0))
    torch.testing.assert_close(scaled, 3 * conv4_3)
    assert torch.equal(unchanged, conv7)


def test_fc6_and_fc7_are_decimated(torchvision_state: dict[str, Tensor], saved) -> None:
    backbone = VGG16(weights=saved(torchvision_state))
    assert_features_equal(backbone, torchvision_state)
    fc6, fc7 = torchvision_state["classifier.0.weight"], torchvision_state["classifier.3.weight"]
    conv6, conv7 = convolutions(backbone)[13:]
    for out, channel, row, column in [(0, 0, 0, 0), (1, 2, 1, 2), (17, 301, 2, 0), (1023, 511, 2, 2), (500, 9, 0, 1)]:
        position = channel * 49 + 3 * row * 7 + 3 * column
        assert conv6.weight[out, channel, row, column] == fc6[4 * out, position]
        assert conv7.weight[out, channel, 0, 0] == fc7[4 * out, 4 * channel]
    assert torch.equal(conv6.bias, torchvision_state["classifier.0.bias"][::4])
    assert torch.equal(conv7.bias, torchvision_state["classifier.3.bias"][::4])
    assert backbone.normalization == IMAGENET


def test_batch_norm_has_weights_of_its_own(torchvision_state: dict[str, Tensor], saved) -> None:
    with torch.device("meta"):
        theirs = vgg16_bn().state_dict()
    state = {
        name: overlapping(*tensor.shape, seed=index) if tensor.dim() else torch.tensor(7)
        for index, (name, tensor) in enumerate(theirs.items())
    }
    backbone = VGG16(weights=saved(state), batch_norm=True)
    ours = nn.Sequential(*backbone.to_conv4_3, *backbone.to_conv7).state_dict()
    features = [name for name in state if name.startswith("features.")]
    assert all(torch.equal(ours[name.removeprefix("features.")], state[name]) for name in features)
    assert torch.equal(convolutions(backbone)[14].weight[3, 2, 0, 0], state["classifier.3.weight"][12, 8])
    is_refused(saved(state), r"not torchvision's VGG16: .* first features\.2\.weight")
    answer = r"not torchvision's VGG16 with batch norm: .* first features\.1\.weight"
    is_refused(saved(torchvision_state), answer, batch_norm=True)


def test_features_alone_leave_fc6_and_fc7_new(torchvision_state: dict[str, Tensor], saved) -> None:
    nothing = torch.tensor(math.nan)
    classifier = {k: nothing.expand(v.shape) for k, v in torchvision_state.items() if k.startswith("classifier")}
    backbone = VGG16(weights=saved({**torchvision_state, **classifier}))
    assert_features_equal(backbone, torchvision_state)
    assert all(weight.isfinite().all() for weight in backbone.state_dict().values())
    assert convolutions(backbone)[13].weight.std() > 0
    assert backbone.normalization == TORCHVISION_SSD


def test_weights_by_name_are_torchvisions(torchvision_state: dict[str, Tensor], monkeypatch) -> None:
    fetch = Mock(return_value=torchvision_state)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    assert_features_equal(VGG16(weights="IMAGENET1K_V1"), torchvision_state)
    url = VGG16_Weights.IMAGENET1K_V1.url
    fetch.assert_called_once_with(url, check_hash=True, weights_only=True, map_location="cpu")


@pytest.mark.parametrize(
    "error",
    [
        URLError("no network"),
        pickle.UnpicklingError("invalid load key, '<'\n"),
    ],  # a login page
)
def test_without_the_file_one_sentence_says_which_and_where(error: Exception, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", Mock(side_effect=error))
    with torch.device("meta"), pytest.raises(WeightsError) as caught:
        VGG16(weights="IMAGENET1K_FEATURES")
    url = VGG16_Weights.IMAGENET1K_FEATURES.url
    assert url in str(caught.value)
    assert str(tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_exist() -> None:
    answer = r"IMAGENET1K_FEATURES: neither a file nor one of IMAGENET1K_V1, DEFAULT; backbone\.weights=null"
    is_refused("IMAGENET1K_FEATURES", answer, batch_norm=True)


ELSE = {
    "tensor": lambda state: torch.zeros(3),
    "numbers": lambda state: dict.fromkeys(state, 1),
    "vgg13": lambda state: {k: v for k, v in state.items() if not k.startswith("features.28")},
    "no fc7": lambda state: {k: v for k, v in state.items() if not k.startswith("classifier.3")},
    "another shape": lambda state: {**state, "features.5.weight": torch.zeros(4, 4, 3, 3)},
}


@pytest.mark.parametrize("kind", ELSE)
def test_weights_of_something_else(torchvision_state: dict[str, Tensor], saved, kind: str) -> None:
    is_refused(saved(ELSE[kind](torchvision_state)), r"vgg16\.pth(: not torchvision's VGG16| holds )")


def test_the_file_that_ssd_pytorch_starts_from(saved) -> None:
    with torch.device("meta"):
        empty = VGG16()
    layers = nn.Sequential(*empty.to_conv4_3, *empty.to_conv7).state_dict()
    reduced = {name: overlapping(*tensor.shape, seed=seed) for seed, (name, tensor) in enumerate(layers.items())}
    net = VGG16(weights=saved(reduced))
    assert net.normalization == SUBTRACT_MEAN_RGB
    found = nn.Sequential(*net.to_conv4_3, *net.to_conv7).state_dict()
    torch.testing.assert_close(found, reduced, rtol=0, atol=0)
    del reduced["33.bias"]
    is_refused(saved(reduced), r"not vgg16_reducedfc\.pth: 1 names or shapes differ, first 33\.bias")
