"""From settings to objects: what a run starts from, and what it shares out."""

import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torchvision.models import mobilenet_v2

from helpers.choices import meta_net, only_shapes
from ssd_lightning import assembly
from ssd_lightning.assembly import make_module, make_net, synchronizes_batch_norm
from ssd_lightning.auto_settings import resolve_augmentation, resolve_priors
from ssd_lightning.config import compose_config
from ssd_lightning.data.resize import Letterbox, ResizeMode, Stretch
from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.inference.checkpoints import detector_spec
from ssd_lightning.initial_weights import check_start, describe_start
from ssd_lightning.models.files import read_checkpoint, stored_normalization
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.normalization import IMAGENET, TORCHVISION_SSD
from ssd_lightning.training import devices
from test_choices import BACKBONES

WITHOUT_IMAGENET = {"mobilenet_v1", "tiny"}
"""torchvision has no weights for these; timm's are tried in tests/models/test_timm_models.py."""
TWO_CLASSES: Any = SimpleNamespace(class_names=("a", "b"), resize=Stretch(), dataset=lambda split: range(99))
FIT_PRIORS = partial(resolve_priors, data=TWO_CLASSES, checkpoint=None)
SMALL = ["model=tiny_ssd", "image_size=[64,64]", "extras.channels=[16,16,16]"]


@pytest.mark.parametrize(
    "backbone", sorted(BACKBONES.keys() - WITHOUT_IMAGENET - {"timm", "resnet50", "resnet50_whole"})
)
def test_a_backbone_starts_from_imagenet_unless_it_is_reported_not_to(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(url: str, **settings: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    address = r"https://download\.pytorch\.org/models/\S+\.pth"
    expected = rf"cannot get the ImageNet weights {address} \(no network\): put that file at .*backbone\.weights=null"
    config = compose_config("train", [f"backbone={backbone}"])
    with torch.device("meta"), only_shapes(), pytest.raises(WeightsError, match=expected):
        make_net(config, 3)


def test_real_imagenet_weights(shared_dir: Path) -> None:
    file = shared_dir / "weights" / "mobilenet_v2-b0353104.pth"
    config = compose_config("train", ["backbone=mobilenet_v2"])
    config.backbone.update({"weights": str(file), "freeze": 3, "freeze_norm": True})
    net = make_net(config, 20)
    theirs = mobilenet_v2()
    theirs.load_state_dict(torch.load(file, weights_only=True))
    ours = net.extractor.backbone.features.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.features.state_dict().items())
    told = describe_start(config, net, None)
    assert f"the network starts from the weights of {file} in the backbone (MobileNetV2)" in told
    learning = sum(weight.numel() for weight in net.parameters() if weight.requires_grad)
    assert f"{learning:,} of its {sum(weight.numel() for weight in net.parameters()):,} parameters learn" in told
    assert "(backbone.freeze=3, backbone.freeze_norm=true)" in told


@pytest.mark.parametrize(
    ("overrides", "start"),
    [
        (["backbone=vgg16"], "the ImageNet weights IMAGENET1K_FEATURES in the backbone"),
        (["backbone=vgg16", "backbone.weights=null"], "random weights (backbone.weights=null);"),
        (["model=tiny_ssd"], "random weights;"),
        (["init_from=run"], "the weights of run;"),
    ],
)
def test_one_line_says_what_a_run_starts_from(overrides: list[str], start: str) -> None:
    config = compose_config("train", overrides)
    net = meta_net(config)
    told = describe_start(config, net, None)
    assert told.startswith(f"the network starts from {start}")
    assert describe_start(config, net, Path("last.ckpt")).startswith("the network starts from the weights of last.ckpt")


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"trainer": {"devices": 4096}}, "trainer.devices=4096: this machine has"),
        ({"trainer": {"accelerator": "abacus"}}, "abacus"),
        ({"trainer": {"precision": "16-mixed", "gradient_clip_val": 1}}, "needs optimizer.fused=false"),
        ({"matmul_precision": "low"}, "matmul_precision is 'low'; it can be highest, high or medium"),
        ({"compile": "fast"}, "compile is 'fast'; it can be null, default, reduce-overhead, max"),
        ({"trainer": {"num_nodes": None}}, "trainer.num_nodes is None"),
        ({"trainer": {"max_epochs": "many"}}, "trainer.max_epochs is 'many'"),
        ({"trainer": {"min_epochs": "abc"}}, "trainer.min_epochs is 'abc'"),
        ({"trainer": {"check_val_every_n_epoch": 0}}, "trainer.check_val_every_n_epoch is 0"),
        ({"trainer": {"val_check_interval": 0}}, "trainer.val_check_interval is 0"),
        ({"trainer": {"limit_train_batches": 0}}, "trainer.limit_train_batches is 0"),
        ({"trainer": {"gradient_clip_val": -1}}, "trainer.gradient_clip_val is -1"),
        ({"trainer": {"deterministic": "yes"}}, "trainer.deterministic is 'yes'"),
        ({"seed": "abc"}, "seed is 'abc'"),
    ],
)
def test_what_the_machine_cannot_do_is_refused_before_anything_else(settings: dict[str, Any], answer: str) -> None:
    config: Any = OmegaConf.merge(compose_config("train", [*SMALL, "trainer.accelerator=cpu"]), settings)
    with pytest.raises(ConfigurationError, match=answer):
        assembly.set_up_machine(config)


@pytest.mark.parametrize(
    ("overrides", "check", "answer"),
    [
        (["init_from=a.pth", "resume=run"], partial(check_start, checkpoint=None), "give one of them"),
        (["budget=10"], partial(assembly.make_budget, started=0.0), "budget is 10"),
        (["priors.fit=some"], FIT_PRIORS, "priors.fit is 'some'"),
        (["priors=auto", "ablation=squares"], FIT_PRIORS, "ablation=.*priors.fit=true"),
    ],
)
def test_settings_that_say_nothing_or_two_things(overrides: list[str], check: Any, answer: str) -> None:
    config = compose_config("train", [*SMALL, *overrides])
    with pytest.raises(ConfigurationError, match=answer):
        check(config)


@pytest.mark.parametrize("setting", ["freeze=2", "freeze_norm=true"])
def test_layers_that_would_stay_random_are_not_frozen(setting: str) -> None:
    config = compose_config("train", ["backbone=vgg16", f"backbone.{setting}"])
    check_start(config, None)
    config.backbone.weights = None
    check_start(config, Path("last.ckpt"))
    with pytest.raises(ConfigurationError, match=r"would be random: give backbone\.weights= or init_from="):
        check_start(config, None)


def test_a_run_that_goes_on_needs_no_imagenet_file_and_keeps_its_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = compose_config("train", ["backbone=vgg16"])
    with torch.device("meta"):
        net = make_net(config, 2, pretrained=False)
    assert net.normalization == IMAGENET
    net.use_normalization(TORCHVISION_SSD)  # as IMAGENET1K_FEATURES do
    checkpoint = tmp_path / "last.ckpt"
    torch.save({"detector": detector_spec(net, ["a", "b"], PostProcess())}, checkpoint)
    assert stored_normalization(read_checkpoint(checkpoint)) == TORCHVISION_SSD
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **settings: pytest.fail(f"fetched {url}"))
    with caplog.at_level(logging.INFO):
        module = make_module(config, TWO_CLASSES, ranks=1, checkpoint=checkpoint)
    assert module.net.normalization == TORCHVISION_SSD
    assert f"the network starts from the weights of {checkpoint}" in caplog.text


def test_batch_norm_is_synchronised_where_there_is_more_than_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    small = compose_config("train", SMALL)
    for settings, ranks, device, expected in [
        ({}, 4, "cuda", True),
        ({}, 1, "cuda", False),
        ({}, 4, "cpu", False),  # torch cannot
        ({"sync_batchnorm": False}, 4, "cuda", False),
        ({"sync_batchnorm": True}, 1, "cuda", True),
        ({"accelerator": "cpu"}, 4, "cpu", False),
    ]:
        monkeypatch.setattr(devices, "choose_device", lambda wanted, device=device: torch.device(device))
        config: Any = OmegaConf.merge(small, {"trainer": settings})
        assert synchronizes_batch_norm(config, ranks) == expected, (settings, ranks, device)


@pytest.mark.parametrize(("resize", "mode"), [("stretch", Stretch()), ("letterbox", Letterbox())])
@pytest.mark.parametrize("augmentation", ["paper", "none"])
def test_one_word_letterboxes_training_and_evaluation(augmentation: str, resize: str, mode: ResizeMode) -> None:
    overrides = ["data=toy", f"augmentation={augmentation}", "image_size=[64,64]", f"augmentation.resize={resize}"]
    if augmentation == "paper":
        overrides += ["augmentation.expand=false", "augmentation.crop=false", "augmentation.photometric=false"]
    config = compose_config("train", overrides)
    assert instantiate(config.data.module, _convert_="all").resize == mode
    augment = instantiate(config.augmentation, _convert_="all")
    sample, _, _ = augment(np.full((20, 40, 3), 200, np.uint8), np.zeros((0, 4), np.float32), 3)
    assert sample.shape == (64, 64, 3)
    assert (sample[-1] == Letterbox().fill).all() == (mode == Letterbox())


def test_one_word_trains_at_many_sizes() -> None:
    overrides = ["data=toy", "backbone=tiny", *SMALL, "data.multiscale=[64,128]", "data.batch_size=2"]
    config = compose_config("train", overrides)
    module = make_module(config, TWO_CLASSES, ranks=1, checkpoint=None)
    assert module.net.training_sizes == ((96, 96), (128, 128))
    data = instantiate(config.data.module, _convert_="all")
    assert data._multiscale.sizes == ((64, 64), (96, 96), (128, 128))


@pytest.mark.parametrize("side", ["[64,64]", "64"])
def test_augmentation_scales_as_far_as_the_training_boxes_stand_it(tmp_path: Path, side: str) -> None:
    toy = ["data=toy", f"data.root={tmp_path}", "data.num_train=6", "data.num_val=2", "data.num_test=2"]
    config = compose_config("train", [*SMALL, *toy, "auto_augmentation=true", f"image_size={side}"])
    data = assembly.make_data(config)
    resolve_augmentation(config, data)
    settled = config.augmentation
    assert not config.auto_augmentation
    assert 1 <= settled.max_expand_ratio < 4  # objects of an input of 64 px are small
    image, _ = data.dataset("train")[0]
    again = assembly.make_data(config)  # as the recorded configuration has it: nothing is left to decide
    resolve_augmentation(config, again)
    assert torch.equal(again.dataset("train")[0][0], image)
    none = compose_config("train", [*SMALL, *toy, "auto_augmentation=true", "augmentation=none"])
    with pytest.raises(ConfigurationError, match="goes with augmentation=paper"):
        resolve_augmentation(none, data)


def test_a_rate_scales_with_the_images_that_a_step_has() -> None:
    """The split has 99 images, fewer than `data.batch_size`."""
    config = compose_config("train", [*SMALL, "data.batch_size=198", "optimizer.scale_with_batch=33"])
    scaling: Any = make_module(config, TWO_CLASSES, ranks=1, checkpoint=None).batch_scaling
    assert scaling.keywords == {"reference": 33, "batch_size": 99}


def test_a_score_that_nothing_logs_is_a_warning_before_the_training(caplog: pytest.LogCaptureFixture) -> None:
    config = compose_config("train", [*SMALL, "objective=val/map50"])
    module = make_module(config, TWO_CLASSES, ranks=1, checkpoint=None)
    assert set(module.score_names("val")) >= {"val/map_11point", "val/map_50", "val/ap_11point/b"}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text for text in warnings if "objective=val/map50" in text and "did you mean 'val/map_50'?" in text]
    assert not [text for text in warnings if "monitor" in text]
