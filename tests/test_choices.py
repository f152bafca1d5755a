"""Every choice of every group composes, and makes what it says."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from helpers.annotation_tools import VOC_CLASSES
from helpers.choices import build_net, meta_net, options
from ssd_lightning.assembly import make_net
from ssd_lightning.config import compose_config
from ssd_lightning.data.toy import TOY_CLASSES
from ssd_lightning.errors import ConfigurationError, find_user_error
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.training import DetectionDataModule

INDEPENDENT = (
    "model", "data", "optimizer", "scheduler", "augmentation", "loss/matcher", "loss/class_loss", "loss/box_loss",
)  # fmt: skip


def with_choice(group: str, choice: str) -> DictConfig:
    """Compose a choice together with one of every other independent group, since each composition takes a second."""
    number = options(group).index(choice)
    chosen = {name: options(name)[number % len(options(name))] for name in INDEPENDENT}
    assert chosen[group] == choice
    return compose_config("train", [f"{name}={option}" for name, option in chosen.items()])


BACKBONES = {
    **dict.fromkeys(["efficientnet_b3", "resnet34", "resnet50", "resnet50_whole", "vgg16", "vgg16_bn"], 8732),
    **dict.fromkeys(["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large"], 3000),
    **{"squeezenet": 2568, "timm": 8744, "tiny": 7164},
}
"""Number of priors of each backbone and model."""
SSD300 = ["ssd300", "amdegroot_ssd300", "lufficc_ssd300", "torchvision_ssd300"]
SSDLITE320 = ["ssdlite320", "lufficc_mobilenet_v2", "lufficc_mobilenet_v3", "torchvision_ssdlite320"]
QFGAOHAO = ["qfgaohao_mobilenet_v1", "qfgaohao_mobilenet_v1_lite", "qfgaohao_mobilenet_v2_lite"]
MODELS = {
    **dict.fromkeys([*SSD300, "lufficc_efficientnet_b3", "qfgaohao_vgg16"], 8732),
    **dict.fromkeys(["ssd512", "amdegroot_ssd512", "lufficc_ssd512"], 24564),
    **dict.fromkeys(SSDLITE320, 3234),
    **dict.fromkeys(QFGAOHAO, 3000),
    **{"fpnlite320": 12_804, "fpnlite640": 51_150, "ssdlite320_p3": 8536},
    **{"qfgaohao_squeezenet_lite": 2568, "tiny_ssd": 5444},
}


NEAR_OTHERS = {  # each has a sibling that the quick tests build; tests/test_networks.py trains them all
    "resnet50_whole", "vgg16_bn", "mobilenet_v3_large", "efficientnet_b3",
    "amdegroot_ssd512", "fpnlite640", "lufficc_mobilenet_v2", "lufficc_ssd300",
    "lufficc_ssd512", "qfgaohao_mobilenet_v1", "qfgaohao_mobilenet_v2_lite", "qfgaohao_vgg16", "ssdlite320_p3",
    "torchvision_ssdlite320",
}  # fmt: skip


def each_of(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in NEAR_OTHERS else name for name in names]


@pytest.mark.parametrize("model", each_of(options("model")))
def test_a_model_needs_one_word(model: str) -> None:
    assert len(meta_net(with_choice("model", model)).priors_cxcywh) == MODELS[model]


@pytest.mark.parametrize("data", options("data"))
def test_data_sets_validate_on_other_images_than_they_train_on(data: str) -> None:
    config = with_choice("data", data)
    if OmegaConf.is_missing(config.data, "root"):
        config.data.root = "nowhere"
    module = instantiate(config.data.module, _convert_="all")
    assert isinstance(module, DetectionDataModule)
    train, val = (module.stages.arguments(stage) for stage in ("train", "val"))
    assert (train.get("part"), val.get("part")) == ("train", "val") or train["splits"] != val["splits"]


@pytest.mark.parametrize(("data", "years"), [("voc0712", ["VOC2007", "VOC2012"]), ("voc2007", ["VOC2007"])])
def test_voc_has_its_twenty_classes_and_its_splits(data: str, years: list[str]) -> None:
    config = with_choice("data", data).data
    assert tuple(config.class_names) == VOC_CLASSES
    for stage, expected in (
        ("train", [(year, "trainval") for year in years]),
        ("val", [(year, "trainval") for year in years]),
        ("test", [("VOC2007", "test")]),
    ):
        assert [(Path(split.root).name, split.split) for split in config.module[stage].splits] == expected


def test_the_toy_set_has_all_its_classes_whatever_the_images_show() -> None:
    assert list(with_choice("data", "toy").data.class_names) == sorted(TOY_CLASSES)


@pytest.mark.parametrize("group", ["optimizer", "scheduler", "augmentation"])
def test_other_groups_instantiate(group: str) -> None:
    for option in options(group):
        assert callable(instantiate(with_choice(group, option)[group], _convert_="all"))


@pytest.mark.parametrize("part", ["matcher", "class_loss", "box_loss"])
def test_every_part_of_the_loss_can_be_chosen(part: str) -> None:
    for option in options(f"loss/{part}"):
        config = with_choice(f"loss/{part}", option)
        loss = instantiate(config.loss, _convert_="all")
        assert f"{type(loss).__module__}.{type(loss).__name__}" == "ssd_lightning.losses.multibox.MultiBoxLoss"
        assert type(getattr(loss, part)).__name__ == config.loss[part]._target_.rpartition(".")[2]
    with pytest.raises(ConfigurationError, match=f"loss.{part} is 'greedy'; .*choose one by loss/{part}="):
        MultiBoxLoss(**{part: "greedy"})


@pytest.mark.parametrize("backbone", each_of(options("backbone")))
def test_a_backbone_needs_one_word_and_takes_sizes_that_are_not_square(backbone: str) -> None:
    config = compose_config("train", [f"backbone={backbone}"])
    if backbone == "timm":
        config.backbone.name = "resnet18"
    assert len(build_net(config).priors_cxcywh) == BACKBONES[backbone]
    config.image_size = [320, 448]
    net = meta_net(config).eval()
    output = net(torch.zeros(1, 3, 320, 448, device="meta"))
    assert output.class_logits.shape[1] == len(net.priors_cxcywh)


def test_a_finer_level_is_two_settings() -> None:
    config, unchanged = (compose_config("train", ["backbone=mobilenet_v2", *more]) for more in (["priors=linear"], []))
    for one in (config, unchanged):
        one.image_size, one.backbone.strides = [320, 320], [8, 16, 32]
    assert [level.grid_size[0] for level in build_net(config).levels] == [40, 20, 10, 5, 3, 2, 1]
    with pytest.raises(ConfigurationError, match="the network's feature maps; choose matching priors="):
        build_net(unchanged)


@pytest.mark.parametrize(
    ("backbone", "channels", "separable", "towers"),
    [("mobilenet_v1", 128, True, 1), ("efficientnet_b3", 128, True, 1), ("resnet50", 256, False, 2)],
)
def test_fpnlite_suits_its_backbone(backbone: str, channels: int, separable: bool, towers: int) -> None:
    config = compose_config("train", ["model=fpnlite320", f"backbone={backbone}"])
    net = meta_net(config)
    assert [level.grid_size[0] for level in net.levels] == [40, 20, 10, 5, 3]
    assert net.extractor.out_channels == (channels,) * 5
    assert (config.neck.separable, config.head.separable) == (separable, separable)
    assert (net.head.cls_tower is not None) == (towers == 2)
    assert config.loss.class_loss._target_.endswith("FocalLoss")


def test_the_command_line_has_the_last_word_over_what_a_model_brings() -> None:
    again = compose_config("train", ["model=fpnlite320", "loss/class_loss=hard_negative", "neck.out_channels=64"])
    assert again.loss.class_loss._target_.endswith("HardNegativeCrossEntropy")
    assert again.neck.out_channels == 64
    assert meta_net(compose_config("train", ["backbone=mobilenet_v2", "model=ssd512"])).image_size == (512, 512)
    overrides = ["model=tiny_ssd", "priors=ssd300", "image_size=[256,256]", "priors.levels.image_size=300"]
    with pytest.raises(Exception, match=r"32x32 +38x38") as caught:
        build_net(compose_config("train", overrides))
    assert isinstance(find_user_error(caught.value), ConfigurationError)


def test_a_neck_is_one_word() -> None:
    assert build_net(compose_config("train", ["neck=fpn"])).extractor.out_channels == (256,) * 6


@pytest.mark.parametrize("head", options("head"))
def test_a_head_is_one_word(head: str) -> None:
    model = "fpnlite320" if head == "fpnlite" else "ssd300"  # a shared head needs as many channels on all levels
    build_net(compose_config("train", [f"model={model}", f"head={head}", "head.prior_probability=0.01"]))


def test_clipping_of_priors_is_named() -> None:
    config = compose_config("train", ["model=tiny_ssd"])
    for clip in (False, True, "size"):
        config.priors.clip = clip
        priors = make_net(config, 3, pretrained=False).priors_cxcywh
        assert (priors[:, 2:].max() <= 1) == bool(clip)


@pytest.mark.parametrize(("loggers", "names"), [("[csv,wandb]", {"csv", "wandb"}), ("none", set())])
def test_one_or_several_loggers_and_callbacks(loggers: str, names: set[str]) -> None:
    config = compose_config("train", [f"logger={loggers}", "callbacks=[default,ema]"])
    assert set(config.get("logger") or {}) == names
    assert {"ema", "best", "progress"} <= set(config.callbacks)


@pytest.mark.parametrize("overrides", [["model=ssd512"], ["backbone=mobilenet_v1"]])
def test_priors_auto_fits_what_the_network_brings(overrides: list[str]) -> None:
    """A choice would take the place of the priors that belong to the network's maps."""
    plain = compose_config("train", overrides)
    assert plain.priors.fit is False
    plain.priors.fit = True
    assert compose_config("train", [*overrides, "priors=auto"]) == plain
