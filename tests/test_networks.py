"""Every network learns, and what it saves is read again."""

from pathlib import Path

import pytest
import torch

from helpers.random_ssd import random_targets
from ssd_lightning.assembly import make_net
from ssd_lightning.config import compose_config
from ssd_lightning.inference.detector import Detector
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.models.weights import load_pretrained
from test_choices import BACKBONES, MODELS

SAME_LAYERS = {  # as those of another network here; images, priors or the settings of layers differ
    "ssd300", "amdegroot_ssd300", "amdegroot_ssd512", "fpnlite640", "lufficc_efficientnet_b3", "lufficc_ssd300",
    "lufficc_ssd512", "qfgaohao_mobilenet_v1", "torchvision_ssd300",
}  # fmt: skip
NETWORKS = [f"backbone={name}" for name in BACKBONES if name != "tiny"]
NETWORKS += [f"model={name}" for name in MODELS if name not in SAME_LAYERS]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", NETWORKS)
def test_every_weight_learns_and_is_read_again(overrides: str, tmp_path: Path) -> None:
    config = compose_config("train", [overrides])
    if overrides == "backbone=timm":
        config.backbone.name = "resnet18"
    net = make_net(config, 3, pretrained=False).train()
    batch = 2 if any("running_mean" in name for name in net.state_dict()) else 1  # what batch norm needs
    images = torch.randint(0, 256, (batch, 3, *net.image_size), dtype=torch.uint8)
    losses = MultiBoxLoss()(net(images), random_targets(batch, 3))
    (losses["loss_box"] + losses["loss_cls"]).backward()
    assert all(weight.grad.isfinite().all() for weight in net.parameters())

    Detector(net, class_names=("a", "b", "c")).save(tmp_path / "net.ckpt")
    again = Detector.load(tmp_path / "net.ckpt").net
    assert torch.equal(again.priors_cxcywh, net.priors_cxcywh)
    torch.testing.assert_close(again.state_dict(), net.state_dict(), rtol=0, atol=0)
    for parameter in again.parameters():
        torch.nn.init.zeros_(parameter)
    assert not load_pretrained(again, tmp_path / "net.ckpt").reinitialised
    torch.testing.assert_close(again.state_dict(), net.state_dict(), rtol=0, atol=0)
