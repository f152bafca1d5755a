from copy import deepcopy

import pytest
import torch
from torch import nn

from ssd_lightning.models.layers import FoldingSequential, L2Norm, fold_norms, pass_on_meta


def test_norm_over_channels_is_the_scale() -> None:
    features = torch.randn(2, 512, 3, 5) * torch.logspace(-3, 3, 15).view(3, 5)
    norm = L2Norm(512)
    directions = features / features.norm(dim=1, keepdim=True)
    torch.testing.assert_close(norm(features), 20 * directions)
    norm.weight.data = torch.arange(512.0)  # each channel has its own
    torch.testing.assert_close(norm(features), torch.arange(512.0)[:, None, None] * directions)
    assert norm(torch.zeros(1, 512, 1, 1)).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_are_normalised_in_float32(dtype: torch.dtype) -> None:
    features = (torch.rand(1, 512, 2, 2) * 100).to(dtype)  # 512 squares of that overflow float16
    with torch.autocast("cpu", torch.bfloat16):
        normalised = L2Norm(512)(features)
    assert normalised.dtype is torch.float32
    assert torch.equal(normalised, L2Norm(512)(features.float()))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_folding_a_frozen_norm_changes_neither_values_nor_gradients_nor_names(affine: bool, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=bias), nn.BatchNorm2d(8, affine=affine), nn.ReLU6()),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=bias),
        nn.BatchNorm2d(8, affine=affine),
    ).double()
    for tensor in plain.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) + 0.1)
    holder = nn.ModuleDict({"layers": deepcopy(plain)})
    fold_norms(holder)
    folding = holder["layers"]
    assert all(isinstance(part, FoldingSequential) for part in (folding, folding[0]))
    images = torch.rand(2, 3, 9, 9, dtype=torch.float64)
    for network in (plain.eval(), folding.eval()):
        network(images).square().sum().backward()
    torch.testing.assert_close(folding(images), plain(images))
    gradients = [{name: weight.grad for name, weight in network.named_parameters()} for network in (folding, plain)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(folding.train()(images), plain.train()(images))  # a norm that learns is no constant


def test_shapes_are_not_measured_through_a_norm_of_other_channels() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(4))
    with pytest.raises(RuntimeError, match="8 elements not 4"):
        pass_on_meta(network, (1, 3, 9, 9), training=False)
