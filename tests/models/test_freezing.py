from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from helpers.choices import without_initialization
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models import SSD
from ssd_lightning.models.backbones import VGG16, EfficientNetB3, MobileNetV2, ResNet, TimmBackbone
from ssd_lightning.models.extras import TinyExtras
from ssd_lightning.models.freezing import freeze_backbone, stages_of
from ssd_lightning.ops.prior_levels import levels_from_scales

SIZE = (96, 96)

FIRST_OF_STAGES = {
    "vgg16": (VGG16, ["to_conv4_3.0", "to_conv4_3.5", "to_conv4_3.10", "to_conv4_3.17", "to_conv7.1"]),
    "resnet": (
        partial(ResNet, depth=50, maps="conv3_to_conv5"),
        ["stages.0.0", "stages.0.4.0.conv1", "stages.0.5.0.conv1", "stages.1.0.conv1", "stages.2.0.conv1"],
    ),
    # conv4 has lost its stride, so that it is of conv3's size.
    "resnet, cut": (
        partial(ResNet, depth=34, maps="conv4"),
        ["stages.0.0", "stages.0.4.0.conv1", "stages.0.5.0.conv1"],
    ),
    "efficientnet, with squeeze and excitation": (
        EfficientNetB3,
        ["features.0.0", *(f"features.{block}.0.block.0.0" for block in (2, 3, 4, 6))],
    ),
    "pvt_v2_b0, whose attention makes maps of the last size in its first stage": (
        partial(TimmBackbone, name="pvt_v2_b0", weights=None),
        ["patch_embed.proj", *(f"stages_{stage}.downsample.proj" for stage in (1, 2, 3))],
    ),
    "hrnet, with maps of several sizes beside each other": (
        partial(TimmBackbone, name="hrnet_w18_small", weights=None),
        ["conv1", "conv2", "transition1.0.0", "transition2.2.0.0", "transition3.3.0.0"],
    ),
}


@pytest.mark.parametrize(("make", "firsts"), FIRST_OF_STAGES.values(), ids=FIRST_OF_STAGES.keys())
def test_a_stage_is_all_blocks_of_one_map_size(make: Callable[[], nn.Module], firsts: list[str]) -> None:
    with torch.device("meta"), without_initialization():
        backbone = make()
    stages = stages_of(backbone, SIZE)
    assert [stage[0].removeprefix("network.") for stage in stages] == firsts
    owners = [name for name, layer in backbone.named_modules() if [*layer.parameters(recurse=False)]]
    assert sorted(name for stage in stages for name in stage) == sorted(owners)


def small_ssd(backbone: nn.Module) -> SSD:
    scales = [(0.2, 0.3), (0.4, 0.5), (0.6, 0.7), (0.8, 0.9)]
    return SSD(
        backbone=backbone,
        extras=partial(TinyExtras, channels=[8]),
        levels=levels_from_scales(scales=scales, aspect_ratios=[(2,)] * 4, image_size=SIZE),
        image_size=SIZE,
        num_classes=2,
    )


def learn(net: SSD) -> None:
    """One step with large gradients everywhere. Like the Trainer, it does not call `net.train()`."""
    optimizer = torch.optim.SGD([weight for weight in net.parameters() if weight.requires_grad], lr=0.1)
    output = net(torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)) * 255)
    (output.box_offsets.square().sum() + output.class_logits.square().sum()).backward()
    optimizer.step()


def changed(net: SSD, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize(("stages", "norm"), [(2, False), (None, True)])
def test_what_is_frozen_stays_to_the_last_bit_and_all_else_learns(stages: int | str | None, norm: bool) -> None:
    torch.manual_seed(0)
    net = small_ssd(MobileNetV2())
    net.freeze_backbone(stages=stages, norm=norm)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    learn(net)
    in_backbone = {name for name in before if name.startswith("extractor.backbone.")}
    blocks = {name for name in in_backbone if int(name.split(".")[3]) < (4 if stages == 2 else 19 if stages else 0)}
    norms = {name for name in in_backbone if before[name].dim() <= 1} if norm else set()
    frozen = blocks | norms
    learning = {name for name, weight in net.named_parameters() if weight.requires_grad}
    assert learning == {name for name, _ in net.named_parameters()} - frozen
    assert not changed(net, before) & frozen
    statistics = {name for name in in_backbone if name.endswith("running_mean")}
    assert changed(net, before) & statistics == statistics - frozen


def test_running_statistics_stay_where_batch_norm_is_another_module() -> None:
    """Lightning replaces batch norms by synchronised ones after they are frozen."""
    with without_initialization():
        net = small_ssd(MobileNetV2())
    net.freeze_backbone(norm=True)
    nn.SyncBatchNorm.convert_sync_batchnorm(net)
    kinds = [layer for layer in net.extractor.backbone.modules() if isinstance(layer, nn.SyncBatchNorm)]
    assert kinds
    assert not any(layer.training for layer in kinds)
    assert not any(layer.weight.requires_grad for layer in kinds)
    assert net.head.training
    assert not net.eval().head.training


def test_layers_without_imagenet_weights_learn() -> None:
    with torch.device("meta"):
        backbone = VGG16(batch_norm=True)
    freeze_backbone(backbone, SIZE, stages="all", norm=True)
    learning = {name for name, weight in backbone.named_parameters() if weight.requires_grad}
    conv6_and_conv7 = {f"to_conv7.{layer}.{kind}" for layer in (12, 15) for kind in ("weight", "bias")}
    assert learning == {"norm.weight", "to_conv7.11.weight", "to_conv7.14.weight", *conv6_and_conv7}


@pytest.mark.parametrize("stages", [6, -1, "some", True])
def test_stages_that_are_not_there_are_refused(stages: object) -> None:
    with (
        torch.device("meta"),
        pytest.raises(ConfigurationError, match=rf"backbone\.freeze is {stages!r}; .*this backbone has 5"),
    ):
        freeze_backbone(VGG16(), SIZE, stages=stages)  # type: ignore[arg-type]


def test_false_freezes_nothing() -> None:
    with torch.device("meta"):
        assert freeze_backbone(VGG16(), SIZE, stages=False) == ()
