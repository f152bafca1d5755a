import functools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.tiny_nets import ssd300, tiny_net
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models import SSD
from ssd_lightning.models.backbones import TinyBackbone
from ssd_lightning.models.extras import SSDExtras
from ssd_lightning.models.head import LiteHead
from ssd_lightning.models.ssd import check_batch_size, measure_grids
from ssd_lightning.ops.normalization import IDENTITY, SUBTRACT_MEAN_BGR, Normalization
from ssd_lightning.ops.priors import SSD300_VOC, PriorLevel, rescale_levels

NO_EXTRAS = functools.partial(SSDExtras, layers=[])


class Windows(nn.Module):
    """A backbone without weights: the mean of every 8 x 8 pixels, and of every 16 x 16."""

    out_channels = (3, 3)
    normalization = IDENTITY

    def forward(self, images: Tensor) -> list[Tensor]:
        return [nn.functional.avg_pool2d(images, 8), nn.functional.avg_pool2d(images, 16)]


def windows_ssd(image_size: tuple[int, int] = (32, 64), **settings) -> SSD:
    levels = [PriorLevel(None, None, 8, 12, (2,)), PriorLevel(None, None, 16, None, (2, 3))]
    return SSD(backbone=Windows(), extras=NO_EXTRAS, image_size=image_size, num_classes=2, levels=levels, **settings)


def test_ssd300_is_that_of_the_paper() -> None:
    net = ssd300()
    output = net.eval()(torch.empty(2, 3, 300, 300, device="meta"))
    assert [level.grid_size for level in net.levels] == [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]
    assert sum(weight.numel() for weight in net.parameters()) == 26_285_486
    assert [tuple(tensor.shape) for tensor in output] == [(2, 8732, 4), (2, 8732, 21), (8732, 4)]
    assert "priors_cxcywh" not in net.state_dict()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 5), (1, 7)])
def test_a_prediction_stands_at_its_prior(row: int, column: int) -> None:
    """A light square in the image changes those predictions whose priors' centres lie on or beside it."""
    net = windows_ssd()
    net.head.apply(lambda layer: nn.init.ones_(layer.weight) if isinstance(layer, nn.Conv2d) else None)
    image = torch.zeros(1, 3, 32, 64)
    image[:, :, row * 8 : (row + 1) * 8, column * 8 : (column + 1) * 8] = 255
    with torch.inference_mode():
        output = net(image)
    centre = torch.tensor([(column + 0.5) * 8, (row + 0.5) * 8])
    centres = net.priors_cxcywh[:, :2] * torch.tensor([64.0, 32.0])
    distance = (centres - centre).abs().amax(dim=1)
    first, second = slice(0, 4 * 8 * 4), slice(4 * 8 * 4, None)
    for changed in (output.box_offsets[0].abs().amax(-1) > 0, output.class_logits[0].abs().amax(-1) > 0):
        assert torch.equal(changed[first], distance[first] <= 8)  # a 3 x 3 convolution on cells of 8 pixels
        assert torch.equal(changed[second], distance[second] <= 4 + 16)  # its cell of 16 pixels, and those beside it


class Claims(TinyBackbone):
    def __init__(self, claimed: Sequence[int], maps: Callable[[list[Tensor]], object] = list) -> None:
        super().__init__(channels=(4, 4, 8))
        self.out_channels, self.maps = tuple(claimed), maps

    def forward(self, images: Tensor) -> Any:
        return self.maps(super().forward(images))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (Claims([8, 8]), r"Claims returns feature maps of \[8\] channels, but its out_channels are \[8, 8\]"),
        (Claims([4]), r"Claims returns feature maps of \[8\] channels, but its out_channels are \[4\]"),
        (Claims([8], lambda maps: maps[0]), "Claims returns a Tensor; it must be a list of feature maps"),
        (Claims([8], lambda maps: dict(enumerate(maps))), "Claims returns a dict; it must be a list"),
    ],
)
def test_a_backbone_gives_what_it_claims(backbone: Claims, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        tiny_net(num_classes=2, backbone=backbone)


@pytest.mark.parametrize("image_size", [(100, 100), (0, 300)])
def test_too_small_a_image_is_refused(image_size: tuple[int, int]) -> None:
    with pytest.raises(ConfigurationError, match=rf"image_size .*\({image_size[0]}, "):
        ssd300(image_size=image_size)
    with pytest.raises(ConfigurationError, match="num_classes is 0"):
        ssd300(num_classes=0)


def test_measuring_leaves_the_network_alone() -> None:
    net = tiny_net(num_classes=2).eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert measure_grids(net.extractor.backbone.train(), (64, 32)) == [(8, 4)]
    assert net.extractor.backbone.training
    check_batch_size(net.eval(), 2)
    assert not any(module.training for module in net.modules())
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("normalization", [None, SUBTRACT_MEAN_BGR])
def test_colours_are_normalised_inside(normalization: Normalization | None) -> None:
    net = windows_ssd(normalization=normalization)
    assert net.normalization == (normalization or IDENTITY)
    image = torch.randint(0, 256, (1, 3, 32, 64), dtype=torch.uint8)
    expected = net.head(net.extractor(net.normalization(image)))
    torch.testing.assert_close(net(image)[:2], expected)


def test_batch_norm_on_one_cell_needs_two_images() -> None:
    """The last level has one cell at 300 pixels, and four at 384."""
    for batch_norm in (False, True):
        net = ssd300(batch_norm=batch_norm, image_size=384, levels=rescale_levels(SSD300_VOC, 300, 384))
        check_batch_size(net, 1)
        net.allow_training_sizes([(300, 300)])
        check_batch_size(net, 2 if batch_norm else 1)
    for with_norm in (net, ssd300(head=LiteHead)):
        check_batch_size(with_norm, 2)
        with pytest.raises(ConfigurationError, match=r"batch_size is too small: each device gets 1 image.* 300 x 300 "):
            check_batch_size(with_norm, 1)


def test_one_forward_in_training_and_in_evaluation() -> None:
    net = windows_ssd().train()
    trained = net(torch.zeros(0, 3, 32, 64))
    assert type(trained) is type(net.eval()(torch.zeros(0, 3, 32, 64)))
    assert trained.class_logits.shape == (0, len(net.priors_cxcywh), 3)


def test_priors_keep_their_digits_in_a_half_precision_network() -> None:
    net = tiny_net(num_classes=2)
    before = net.priors_cxcywh.clone()
    net.bfloat16()
    assert net.head.box[0].weight.dtype == torch.bfloat16
    assert torch.equal(net.priors_cxcywh, before)


def test_training_accepts_other_sizes_with_priors_on_their_grids() -> None:
    net = tiny_net(num_classes=2, image_size=(64, 64))
    net.allow_training_sizes([(32, 32), (64, 64), (96, 128)])
    assert net.training_sizes == ((32, 32), (96, 128))
    for size in ((32, 32), (64, 64), (96, 128)):
        output = net.train()(torch.zeros(2, 3, *size, dtype=torch.uint8))
        assert output.box_offsets.shape[1] == len(output.priors_cxcywh)
        alone = tiny_net(num_classes=2, image_size=size, levels=rescale_levels(net.levels, 64, size))
        torch.testing.assert_close(output.priors_cxcywh, alone.priors_cxcywh)
        torch.testing.assert_close(alone.train()(torch.zeros(2, 3, *size)).class_logits, output.class_logits)
    with pytest.raises(ValueError, match=r"expects images of size \(64, 64\), got \(160, 160\)"):
        net(torch.zeros(2, 3, 160, 160))
    with pytest.raises(ValueError, match=r"expects images of size \(64, 64\), got \(32, 32\)"):
        net.eval()(torch.zeros(2, 3, 32, 32))


def test_a_size_that_the_layers_cannot_take_is_refused_at_the_start() -> None:
    net = ssd300()
    net.allow_training_sizes([(320, 320), (384, 384)])
    with pytest.raises(
        ConfigurationError, match=r"data\.multiscale includes 224 x 224: .* does not fit this network's"
    ):
        net.allow_training_sizes([(224, 224)])
