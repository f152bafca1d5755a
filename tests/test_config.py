"""What the configuration states, where it is found, and how its errors are told."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from helpers.choices import CONF
from ssd_lightning import config as configs
from ssd_lightning.config import compose_config, find_folder, register_experiments
from ssd_lightning.data.augmentation import SSDAugmentation
from ssd_lightning.errors import ConfigurationError, DataError, UserError, find_user_error
from ssd_lightning.losses import BipartiteMatcher, HardNegativeCrossEntropy, SmoothL1Loss
from ssd_lightning.training import SSDModule


def test_the_paper_is_the_default() -> None:
    config = compose_config("train")
    assert instantiate(config.loss.matcher, _convert_="all") == BipartiteMatcher()
    assert instantiate(config.loss.box_loss, _convert_="all") == SmoothL1Loss()
    paper = compose_config("train", ["loss/class_loss=hard_negative_paper"]).loss.class_loss
    assert instantiate(paper, _convert_="all") == HardNegativeCrossEntropy()
    assert (config.optimizer.lr, config.optimizer.momentum, config.optimizer.weight_decay) == (1e-3, 0.9, 5e-4)
    assert (config.optimizer.bias_lr_factor, config.optimizer.decay_biases, config.data.batch_size) == (2.0, False, 32)
    module = inspect.signature(SSDModule).parameters
    for name in ("bias_lr_factor", "backbone_lr_factor", "decay_biases"):
        assert config.optimizer[name] == module[name].default
    assert config.priors.clip is False
    assert isinstance(instantiate(config.augmentation, _convert_="all"), SSDAugmentation)
    # 120k of the paper's steps are 232 epochs of 16,551 images
    assert abs(config.trainer.max_epochs * (16551 // 32) - 120_000) < 120_000 // config.trainer.max_epochs
    assert [round(milestone * 120) for milestone in config.scheduler.milestones] == [80, 100]
    # Images without objects teach as much as one positive, which the paper does not have.
    assert config.loss.class_loss.min_negatives == config.loss.class_loss.negative_ratio


MADE_BY_THE_RUN = {
    "in_channels", "module", "boxes_per_cell", "num_classes", "num_features", "params",
    "optimizer", "total_steps", "progress",
    "splits", "class_names", "transform", "part", "val_fraction", "keep_difficult", "on_error", "max_images",
}  # fmt: skip
"""Arguments that no file states: the network, the data module or its splits give them."""
NOT_OFFERED = {
    "ssd_lightning.models.layers.init_normal": {"std"},  # which another choice of `init` would inherit
    # Boxes are encoded and decoded in several places, which must agree.
    "ssd_lightning.losses.MultiBoxLoss": {"matcher", "class_loss", "box_loss"},  # each a group of its own
    "ssd_lightning.losses.SmoothL1Loss": {"variances"},
    "ssd_lightning.losses.IoULoss": {"variances"}, "ssd_lightning.models.PostProcess": {"variances"},
    "ssd_lightning.data.toy.write_toy_dataset": {"seed"},  # it would be another data set in the same folder
    "ssd_lightning.data.reading.DatasetOpener": {"format"},  # each data set has its own
    "torch.optim.SGD": {"maximize", "foreach", "differentiable"},
    "torch.optim.AdamW": {"maximize", "foreach", "differentiable", "capturable"},
    "torch.nn.BatchNorm2d": {"affine", "track_running_stats", "device", "dtype", "bias"},
    "pytorch_lightning.Trainer": {  # what the run makes, and what has no use in it
        "logger", "callbacks", "plugins", "default_root_dir", "barebones", "model_registry", "limit_predict_batches",
        "reload_dataloaders_every_n_epochs", "enable_autolog_hparams",
    },
}  # fmt: skip
OTHER_VALUES = {
    ("loss/class_loss/hard_negative", "min_negatives"),  # the product's; the constructor has the paper's
    ("scheduler/cosine", "warmup_steps"), ("scheduler/multistep", "milestones"),  # 2/3 and 5/6, rounded
    ("backbone/squeezenet", "ceil_mode"),  # as published with SSD
    ("backbone/resnet34", "depth"), ("backbone/resnet50_whole", "maps"), ("backbone/vgg16_bn", "batch_norm"),
    ("loss/box_loss/diou", "overlap"), ("loss/box_loss/ciou", "overlap"), ("loss/box_loss/l1", "beta"),
    ("data/toy", "num_train"), ("data/toy", "image_size_px"), ("data/layout/common", "cache_folder"),
    ("extras/mobilenet_lite", "norm"), ("extras/squeezenet", "norm"),
}  # fmt: skip
"""Where a file is another choice than the constructor's default."""


def target_nodes(config: DictConfig) -> Iterator[DictConfig]:
    if "_target_" in config:
        yield config
    for key in config:
        if not OmegaConf.is_interpolation(config, str(key)) and isinstance(config._get_node(key), DictConfig):
            yield from target_nodes(config[key])


def plain(value: object) -> object:
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


CONFIG_FILES = [path for path in sorted(CONF.rglob("*.yaml")) if "_target_" in path.read_text()]


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: str(path.relative_to(CONF).with_suffix("")))
def test_files_state_every_setting_with_the_constructors_default(path: Path) -> None:
    file = str(path.relative_to(CONF).with_suffix(""))
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    for node in target_nodes(config):
        target = node["_target_"]
        is_ours = target.startswith("ssd_lightning.") and not target.startswith("ssd_lightning.training.loggers.")
        if not is_ours and target not in NOT_OFFERED:  # a library's, of which a file states what it changes
            continue
        arguments = inspect.signature(get_object(target)).parameters
        stated = set(arguments) & set(node.keys())
        takes_any = any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values())
        unknown = {key for key in map(str, node) if not key.startswith("_") and key != "defaults"} - stated
        assert not is_ours or takes_any or not unknown, (target, unknown)
        if "model/" not in file:  # which changes a part of what another file states
            assert set(arguments) - stated - MADE_BY_THE_RUN - NOT_OFFERED.get(target, set()) <= {"settings"}, target
        values = OmegaConf.to_container(node, resolve=False)
        assert isinstance(values, dict)
        for key in stated:
            value, default = values[key], arguments[key].default
            if file.startswith("backbone/") and key == "weights":
                continue  # a network starts from ImageNet, a class from scratch
            if isinstance(value, str) and value.startswith("${data.") and value[7:-1] in config:
                value = plain(OmegaConf.to_container(config)[value[7:-1]])  # type: ignore[call-overload,index]
            if is_ours and default is not inspect.Parameter.empty and (file, key) not in OTHER_VALUES:
                is_made = isinstance(value, dict) or str(value).startswith("${")
                assert is_made or value == plain(default), (target, key)


def test_an_error_is_found_however_deep_it_is_wrapped_and_loses_the_stack_trace_of_a_worker() -> None:
    message = "Caught DataError in DataLoader worker process 0.\nTraceback:\n  ...\nssd.DataError: x.jpg: truncated\n"
    outer = RuntimeError("while instantiating")
    outer.__cause__ = DataError(message)
    found = find_user_error(outer)
    assert (str(found), isinstance(found, UserError)) == ("x.jpg: truncated", True)
    assert str(find_user_error(DataError("a/b.xml: object 2 has no area"))) == "a/b.xml: object 2 has no area"
    assert find_user_error(RuntimeError("a bug")) is None


def test_folders_are_found_beside_the_code_or_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "src" / "ssd_lightning"
    package.mkdir(parents=True)
    monkeypatch.setattr(configs, "PACKAGE", package)
    with pytest.raises(ConfigurationError, match="no folder conf"):
        find_folder("conf")
    (tmp_path / "conf").mkdir()
    assert find_folder("conf") == tmp_path / "conf"
    (package / "conf").mkdir()
    assert find_folder("conf") == package / "conf"


def test_recipes_that_are_not_named_are_listed_without_being_read() -> None:
    """Reading all takes as long as composing, and Hydra copies what they say for every group that `--help` lists."""
    names = {f"{path.stem}.yaml" for path in find_folder("experiments").glob("*.yaml")}
    store = ConfigStore.instance()
    for arguments, expected in (
        ([], set()),
        (["experiment=toy_tiny", "seed=1"], {"toy_tiny.yaml"}),
        (["experiment=scratch"], {"scratch.yaml", "finetune.yaml"}),  # which it extends
        (["experiment=glob(ssd300*)"], names),
        (None, names),
    ):
        store.repo.pop("experiment", None)
        for again in (arguments, []):  # what was read stays: the jobs of a sweep are composed one after the other
            register_experiments("train", again)
            assert set(store.list("experiment")) == names
            assert {name for name in names if store.load(f"experiment/{name}").node} == expected


@pytest.mark.parametrize("command", ["convert", "demo", "doctor", "evaluate", "export", "predict", "report", "show"])
def test_help_names_every_setting_of_a_command(command: str) -> None:
    settings: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{command}.yaml"))
    template = settings.pop("hydra")["help"]["template"]
    assert "$CONFIG" in template or all(f"{key}=" in template for key in settings.keys() - {"defaults"})
