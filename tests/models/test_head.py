from functools import partial

import pytest
import torch
from torch import nn

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models.head import SharedHead, SSDHead
from ssd_lightning.models.layers import init_normal

BOXES, CLASSES = [4, 6, 2], 5


def head() -> SSDHead:
    return SSDHead(in_channels=[2, 3, 4], boxes_per_cell=BOXES, num_classes=CLASSES)


def test_channel_is_box_times_width_plus_entry() -> None:
    """Every channel's bias is a number of its own, and says in the output where the channel went."""
    net = head()
    for conv in [*net.box, *net.cls]:
        conv.weight.data.zero_()
        conv.bias.data = torch.arange(float(conv.out_channels))
    features = [torch.randn(2, channels, *grid) for channels, grid in ((2, (3, 4)), (3, (2, 2)), (4, (1, 1)))]
    for predicted, width in zip(net(features), (4, CLASSES + 1), strict=True):
        numbers = [torch.arange(boxes * width).repeat(cells) for boxes, cells in zip(BOXES, (12, 4, 1), strict=True)]
        assert torch.equal(predicted, torch.cat(numbers).float().view(-1, width).expand(2, -1, -1))


def test_new_convolutions_start_as_caffes() -> None:
    first = head().box[0]
    assert not first.bias.any()
    bound = (6 / (9 * (2 + 16))) ** 0.5  # Xavier
    assert 0.8 * bound < first.weight.abs().max() <= bound


def shared_head(**settings: object) -> SharedHead:
    arguments = {"in_channels": [6] * 3, "boxes_per_cell": [4] * 3, "num_classes": CLASSES, "channels": 8, **settings}
    return SharedHead(**arguments)


@pytest.mark.parametrize("one_tower", [True, False])
@pytest.mark.parametrize("separable", [True, False])
def test_levels_share_convolutions_but_no_batch_norm(separable: bool, one_tower: bool) -> None:
    net = shared_head(
        num_layers=2, separable=separable, one_tower=one_tower, init=partial(init_normal, std=0.3)
    ).train()
    towers = 1 if one_tower else 2
    convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == (2 * towers + 2) * (2 if separable else 1)  # whatever the number of levels
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules()) == 2 * 3 * towers

    same = torch.randn(2, 6, 3, 4)
    offsets, logits = net([same, same, 5 * same + 3])
    cells = 3 * 4 * 4
    for predicted in (offsets, logits):
        assert torch.equal(predicted[:, :cells], predicted[:, cells : 2 * cells])
    offsets[:, 2 * cells :].sum().backward()
    first = net.tower.convs[0][0] if separable else net.tower.convs[0]
    assert first.weight.grad.abs().max() > 0
    assert [bool(norms[0].weight.grad.any()) for norms in net.tower.norms] == [False, False, True]
    means = [norms[0].running_mean for norms in net.tower.norms]
    assert torch.equal(means[0], means[1])
    assert not torch.allclose(means[0], means[2])


def test_a_shared_head_expects_background_as_others_do() -> None:
    plain = SSDHead(in_channels=[6], boxes_per_cell=[4], num_classes=CLASSES, prior_probability=0.01)
    for convolution in (shared_head().cls[0][-1], plain.cls[0]):
        foreground = 1 - convolution.bias.view(4, CLASSES + 1).softmax(dim=1)[:, 0]
        torch.testing.assert_close(foreground, torch.full((4,), 0.01))


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"in_channels": [6, 6, 8]}, r"the same number of channels on all levels, got \[6, 6, 8\]: use neck="),
        ({"boxes_per_cell": [4, 6, 4]}, r"number of priors per cell on all levels, got \[4, 6, 4\]: use priors="),
        ({"prior_probability": 0}, r"head\.prior_probability is 0"),
    ],
)
def test_what_a_shared_head_cannot_have_is_refused(settings: dict, answer: str) -> None:
    with pytest.raises(ConfigurationError, match=answer):
        shared_head(**settings)
