import inspect
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from ssd_lightning import config as configs
from ssd_lightning.assembly import make_net
from ssd_lightning.command_line import CommandLine
from ssd_lightning.config import check_overrides, compose_config, find_folder, find_user_error, refused_value
from ssd_lightning.data.augmentation import SSDAugmentation
from ssd_lightning.data.formats.voc import VOC_CLASSES
from ssd_lightning.data.toy import TOY_CLASSES
from ssd_lightning.errors import ConfigurationError, DataError, UserError
from ssd_lightning.losses import BipartiteMatcher, HardNegativeCrossEntropy, SmoothL1Loss
from ssd_lightning.models.config import from_config, to_config
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.overrides import refuse_sweep
from ssd_lightning.training import DetectionDataModule, SSDModule

CONF = find_folder("conf")


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def build_net(config: DictConfig, num_classes: int = 3) -> torch.nn.Module:
    """Build it as a run does, and once more from what its checkpoint would say of it."""
    net = make_net(config, num_classes, pretrained=False)
    with torch.device("meta"):
        again = from_config(json.loads(json.dumps(to_config(net))))
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == {
        name: tensor.shape for name, tensor in net.state_dict().items()
    }
    return net


# Networks and their priors of 300 x 300 images, one setting each.
BACKBONES = {
    "efficientnet_b3": 8732,
    "mobilenet_v1": 3000,
    "mobilenet_v2": 3000,
    "mobilenet_v3_large": 3000,
    "resnet34": 8732,
    "resnet50": 8732,
    "resnet50_whole": 8732,
    "squeezenet": 2568,
    "timm": 8744,
    "tiny": 7164,
    "vgg16": 8732,
    "vgg16_bn": 8732,
}
MODELS = {
    "amdegroot_ssd300": 8732,
    "amdegroot_ssd512": 24564,
    "fpnlite320": 12_804,
    "ssdlite320_p3": 8536,
    "fpnlite640": 51_150,
    "lufficc_efficientnet_b3": 8732,
    "lufficc_mobilenet_v2": 3234,
    "lufficc_mobilenet_v3": 3234,
    "lufficc_ssd300": 8732,
    "lufficc_ssd512": 24564,
    "qfgaohao_mobilenet_v1": 3000,
    "qfgaohao_mobilenet_v1_lite": 3000,
    "qfgaohao_mobilenet_v2_lite": 3000,
    "qfgaohao_squeezenet_lite": 2568,
    "qfgaohao_vgg16": 8732,
    "ssd300": 8732,
    "ssd512": 24564,
    "ssdlite320": 3234,
    "tiny_ssd": 5444,
    "torchvision_ssd300": 8732,
    "torchvision_ssdlite320": 3234,
}


CELLS_OF_SSD300 = 38**2 + 19**2 + 10**2 + 5**2 + 3**2 + 1


def test_every_choice_has_its_number() -> None:
    assert options("backbone") == sorted(BACKBONES)
    assert options("model") == sorted(MODELS)


def needed(backbone: str) -> list[str]:
    return ["backbone.name=resnet18"] if backbone == "timm" else []


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_backbone_needs_one_word(backbone: str) -> None:
    with torch.device("meta"):
        net = build_net(compose_config("train", [f"backbone={backbone}", *needed(backbone)]))
    assert len(net.priors_cxcywh) == BACKBONES[backbone]


@pytest.mark.parametrize("model", MODELS)
def test_a_model_needs_one_word(model: str) -> None:
    with torch.device("meta"):
        net = build_net(compose_config("train", [f"model={model}"]))
    assert len(net.priors_cxcywh) == MODELS[model]


@pytest.mark.parametrize("backbone", ["efficientnet_b3", "mobilenet_v2", "resnet34", "squeezenet", "timm", "vgg16"])
def test_backbones_take_other_sizes_that_are_not_square(backbone: str) -> None:
    overrides = [f"backbone={backbone}", "image_size=[320,448]", *needed(backbone)]
    with torch.device("meta"):
        net = make_net(compose_config("train", overrides), 3, pretrained=False).eval()
    output = net(torch.zeros(1, 3, 320, 448, device="meta"))
    assert output.class_logits.shape[1] == len(net.priors_cxcywh)


@pytest.mark.parametrize(
    ("backbone", "channels", "separable", "towers"),
    [
        ("mobilenet_v1", 128, True, 1),
        ("mobilenet_v3_large", 128, True, 1),
        ("efficientnet_b3", 128, True, 1),
        ("resnet50", 256, False, 2),
    ],
)
def test_fpnlite_suits_its_backbone(backbone: str, channels: int, separable: bool, towers: int) -> None:
    config = compose_config("train", ["model=fpnlite320", f"backbone={backbone}"])
    with torch.device("meta"):
        net = make_net(config, 3, pretrained=False)
    assert [level.grid_size[0] for level in net.levels] == [40, 20, 10, 5, 3]
    assert net.extractor.out_channels == (channels,) * 5
    assert (config.neck.separable, config.head.separable) == (separable, separable)
    assert (net.head.cls_tower is not None) == (towers == 2)
    assert config.loss.class_loss._target_.endswith("FocalLoss")


def test_the_command_line_has_the_last_word_over_what_fpnlite_brings() -> None:
    again = compose_config("train", ["model=fpnlite320", "loss/class_loss=hard_negative", "neck.out_channels=64"])
    assert again.loss.class_loss._target_.endswith("HardNegativeCrossEntropy")
    assert again.neck.out_channels == 64


@pytest.mark.parametrize(
    ("backbone", "strides", "cells"),
    [
        ("mobilenet_v2", "[8,16,32]", [40, 20, 10, 5, 3, 2, 1]),
        ("squeezenet", "[8,16]", [39, 19, 11, 6, 3, 2, 1]),
    ],
)
def test_a_finer_level_is_two_settings(backbone: str, strides: str, cells: list[int]) -> None:
    overrides = [f"backbone={backbone}", "image_size=[320,320]", f"backbone.strides={strides}"]
    with torch.device("meta"):
        net = build_net(compose_config("train", [*overrides, "priors=linear"]))
        assert [level.grid_size[0] for level in net.levels] == cells
        with pytest.raises(
            Exception, match="do not match the network's feature maps; choose matching priors="
        ) as caught:
            build_net(compose_config("train", overrides))
    assert isinstance(find_user_error(caught.value), ConfigurationError)


@pytest.mark.parametrize("backbone", ["resnet34", "mobilenet_v2"])
def test_a_backbone_and_a_model_go_together(backbone: str) -> None:
    with torch.device("meta"):
        net = make_net(compose_config("train", [f"backbone={backbone}", "model=ssd512"]), 3, pretrained=False)
    assert net.image_size == (512, 512)


def test_a_neck_is_one_word() -> None:
    with torch.device("meta"):
        net = build_net(compose_config("train", ["neck=fpn"]))
    assert net.extractor.out_channels == (256,) * 6


@pytest.mark.parametrize("head", options("head"))
def test_a_head_is_one_word(head: str) -> None:
    model = "fpnlite320" if head == "fpnlite" else "ssd300"  # a shared head needs as many channels on all levels
    with torch.device("meta"):
        build_net(compose_config("train", [f"model={model}", f"head={head}", "head.prior_probability=0.01"]))


@pytest.mark.parametrize("clip", ["false", "true", "size"])
def test_clipping_of_priors_is_named(clip: str) -> None:
    config = compose_config("train", ["model=tiny_ssd", f"priors.clip={clip}"])
    priors = build_net(config).priors_cxcywh
    assert (priors[:, 2:].max() <= 1) == (clip != "false")


def test_the_command_line_has_the_last_word_over_what_a_backbone_brings() -> None:
    with pytest.raises(Exception, match=r"32x32 +38x38") as caught:
        build_net(
            compose_config(
                "train", ["model=tiny_ssd", "priors=ssd300", "image_size=[256,256]", "priors.levels.image_size=300"]
            )
        )
    assert isinstance(find_user_error(caught.value), ConfigurationError)


def root_of(data: str) -> list[str]:
    return ["data.root=nowhere"] if data.endswith("_folder") or data == "auto" else []


@pytest.mark.parametrize("data", options("data"))
def test_data_sets_compose_and_validate_on_other_images_than_they_train_on(data: str) -> None:
    config = compose_config("train", [f"data={data}", *root_of(data)])
    module = instantiate(config.data.module, _convert_="all")
    assert isinstance(module, DetectionDataModule)
    assert module.has("train")
    assert module.has("val")
    train, val = (module.arguments(stage) for stage in ("train", "val"))
    parts = (train.get("part"), val.get("part"))
    splits = (train["splits"], val["splits"])
    assert parts == ("train", "val") or splits[0] != splits[1]


@pytest.mark.parametrize("group", ["optimizer", "scheduler", "augmentation"])
def test_other_groups_instantiate(group: str) -> None:
    for option in options(group):
        config = compose_config("train", [f"{group}={option}"])
        assert callable(instantiate(config[group], _convert_="all"))


@pytest.mark.parametrize("part", ["matcher", "class_loss", "box_loss"])
def test_every_part_of_the_loss_can_be_chosen(part: str) -> None:
    for option in options(f"loss/{part}"):
        config = compose_config("train", [f"loss/{part}={option}"])
        loss = instantiate(config.loss, _convert_="all")
        assert f"{type(loss).__module__}.{type(loss).__name__}" == "ssd_lightning.losses.multibox.MultiBoxLoss"
        assert type(getattr(loss, part)).__name__ == config.loss[part]._target_.rpartition(".")[2]


def test_the_paper_is_the_default() -> None:
    config = compose_config("train")
    assert instantiate(config.loss.matcher, _convert_="all") == BipartiteMatcher()
    assert instantiate(config.loss.box_loss, _convert_="all") == SmoothL1Loss()
    paper = compose_config("train", ["loss/class_loss=hard_negative_paper"]).loss.class_loss
    assert instantiate(paper, _convert_="all") == HardNegativeCrossEntropy()
    assert (config.optimizer.lr, config.optimizer.momentum, config.optimizer.weight_decay) == (1e-3, 0.9, 5e-4)
    assert (config.optimizer.bias_lr_factor, config.optimizer.decay_biases, config.data.batch_size) == (2.0, False, 32)
    assert config.priors.clip is False
    assert isinstance(instantiate(config.augmentation, _convert_="all"), SSDAugmentation)
    # 120k of the paper's steps are 232 epochs of 16,551 images
    assert abs(config.trainer.max_epochs * (16551 // 32) - 120_000) < 120_000 // config.trainer.max_epochs
    assert [round(milestone * 120) for milestone in config.scheduler.milestones] == [80, 100]


def test_images_without_objects_teach_as_much_as_one_positive() -> None:
    default = compose_config("train").loss.class_loss
    assert default.min_negatives == default.negative_ratio


@pytest.mark.parametrize(
    ("loggers", "names"),
    [("csv", {"csv"}), ("[csv,wandb]", {"csv", "wandb"}), ("tensorboard", {"tensorboard"}), ("none", set())],
)
def test_one_or_several_loggers(loggers: str, names: set[str]) -> None:
    config = compose_config("train", [f"logger={loggers}"])
    assert set(config.get("logger") or {}) == names


def test_ema_is_one_word() -> None:
    config = compose_config("train", ["callbacks=[default,ema]"])
    assert {"ema", "best", "progress"} <= set(config.callbacks)


@pytest.mark.parametrize("experiment", sorted(path.stem for path in find_folder("experiments").glob("*.yaml")))
def test_recipes_compose_and_build_their_network(experiment: str) -> None:
    config = compose_config("train", [f"experiment={experiment}", "data.root=nowhere"])
    assert config.name == experiment
    published = experiment.endswith(("_voc0712", "_coco", "_nvidia", "_paper", "_amdegroot", "_rfb", "_torchvision"))
    if "min_negatives" in config.loss.class_loss:  # it mines; images without objects teach in all but published recipes
        assert (config.loss.class_loss.min_negatives == 0) == published
    with torch.device("meta"):
        assert len(make_net(config, 3, pretrained=False).priors_cxcywh) > 0
    assert instantiate(config.data.module, _convert_="all").has("train")


@pytest.fixture(scope="module")
def paper() -> DictConfig:
    return compose_config("train", ["experiment=ssd300_vgg16_voc0712_paper"])


@pytest.mark.parametrize("ablation", options("ablation"))
def test_ablations_change_the_papers_recipe_and_still_fit(paper: DictConfig, ablation: str) -> None:
    less = compose_config("train", ["experiment=ssd300_vgg16_voc0712_paper", f"ablation={ablation}"])
    assert (paper == less) == (ablation == "none")
    expected = {
        "no_ratio_3": 4 * CELLS_OF_SSD300,
        "squares": 2 * CELLS_OF_SSD300,
        "one_level_less": 8728,
        "two_levels_less": 8692,
    }
    with torch.device("meta"):
        assert len(make_net(less, 3, pretrained=False).priors_cxcywh) == expected.get(ablation, 8732)


@pytest.mark.parametrize(
    ("overrides", "ablation"),
    [
        ("model=ssd512", "two_levels_less"),
        ("model=tiny_ssd", "one_level_less"),
        ("model=ssdlite320", "squares"),
        ("backbone=resnet50", "no_ratio_3"),
    ],
)
def test_ablations_of_the_priors_fit_other_networks(overrides: str, ablation: str) -> None:
    with torch.device("meta"):
        whole, less = (
            make_net(compose_config("train", [overrides, *more]), 3, pretrained=False)
            for more in ([], [f"ablation={ablation}"])
        )
    assert len(less.priors_cxcywh) <= len(whole.priors_cxcywh)
    names = less.state_dict().keys()
    assert names <= whole.state_dict().keys()
    assert from_config(to_config(less)).state_dict().keys() == names


def test_levels_of_a_pyramid_are_dropped_by_its_own_settings() -> None:
    fewer = ["neck.extra_levels=1", "priors.levels.strides=[8,16,32,64]"]
    with torch.device("meta"):
        assert len(build_net(compose_config("train", ["model=fpnlite320", *fewer])).levels) == 4
        assert len(build_net(compose_config("train", ["model=fpnlite320", "ablation=squares"])).priors_cxcywh) == 4268
        with pytest.raises(ConfigurationError, match="1 extra levels cannot be dropped; there are 0"):
            build_net(compose_config("train", ["model=fpnlite320", "ablation=one_level_less"]))


@pytest.mark.parametrize("experiment", sorted(find_folder("experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_set_what_exists(experiment: Path) -> None:
    """Hydra merges a key that nothing reads silently."""
    recipe = OmegaConf.load(experiment)
    assert isinstance(recipe, DictConfig)
    overrides = []
    for entry in recipe.pop("defaults", []):
        if isinstance(entry, DictConfig):
            overrides += [f"{key.removeprefix('override ').lstrip('/')}={value}" for key, value in entry.items()]
        elif entry != "_self_":
            overrides.append(f"experiment={entry}")  # that it changes
    known = compose_config("train", [word.replace(" ", "") for word in overrides])
    assert [key for key in leaves(recipe) if not exists(known, key)] == []


def leaves(config: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in config:
        node = None if OmegaConf.is_interpolation(config, key) else config[key]
        keys += leaves(node, f"{prefix}{key}.") if isinstance(node, DictConfig) else [f"{prefix}{key}"]
    return keys


def exists(config: DictConfig, dotted: str) -> bool:
    *parents, last = dotted.split(".")
    for parent in parents:
        if parent not in config or not isinstance(config._get_node(parent), DictConfig):
            return parent in config  # a null or an interpolation that the recipe fills
        config = config[parent]
    return last in config


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
    "ssd_lightning.losses.SmoothL1Loss": {"variances"}, "ssd_lightning.losses.L1Loss": {"variances"},
    "ssd_lightning.losses.IoULoss": {"variances"}, "ssd_lightning.models.PostProcess": {"variances"},
    "ssd_lightning.data.toy.write_toy_dataset": {"seed"},  # it would be another data set in the same folder
    "ssd_lightning.data.reading.DatasetOpener": {"format"},  # each data set has its own
    "ssd_lightning.data.bananas.prepare_bananas": {"archive"}, "ssd_lightning.data.download.prepare_voc": {"catalogue"},
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
    ("loss/box_loss/diou", "overlap"), ("loss/box_loss/ciou", "overlap"),
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
            if (
                file.startswith("backbone/") and key == "weights"
            ):  # a network starts from ImageNet, a class from scratch
                continue
            if isinstance(value, str) and value.startswith("${data.") and value[7:-1] in config:
                value = plain(OmegaConf.to_container(config)[value[7:-1]])  # type: ignore[call-overload,index]
            if is_ours and default is not inspect.Parameter.empty and (file, key) not in OTHER_VALUES:
                is_made = isinstance(value, dict) or str(value).startswith("${")
                assert is_made or value == plain(default), (target, key)


def test_post_processing_and_biases_have_the_defaults_of_their_code() -> None:
    config = compose_config("train")
    assert instantiate(config.postprocess, _convert_="all") == PostProcess()
    module = inspect.signature(SSDModule).parameters
    for name in ("bias_lr_factor", "backbone_lr_factor", "decay_biases"):
        assert config.optimizer[name] == module[name].default


def test_every_recipe_has_a_row_in_the_table_of_results() -> None:
    folder = find_folder("experiments")
    table = (folder / "README.md").read_text()
    assert [path.stem for path in sorted(folder.glob("*.yaml")) if f"| `{path.stem}` |" not in table] == []


def test_recipes_are_short() -> None:
    for experiment in find_folder("experiments").glob("*.yaml"):
        lines = [line for line in experiment.read_text().splitlines() if line.strip() and not line.startswith("#")]
        assert len(lines) <= 15, experiment


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("trainer.max_epoch=3", "did you mean 'trainer.max_epochs'"),
        ("optimzer.lr=1", "did you mean 'optimizer.lr'"),
        ("lr=0.1", "did you mean 'optimizer.lr'"),
        ("loger=csv", "did you mean 'logger'"),
        ("backbone=vgg61", "did you mean 'vgg16'.*timm, tiny, vgg16, vgg16_bn"),
        ("experiment=toy_tinny", "did you mean 'toy_tiny'"),
        ("logger=[csv,wand]", "did you mean 'wandb'"),
        ("backbone", "'backbone' is not key=value"),
        ("data.num_workers=[1", r"'\[' is not closed"),
        ("~loger", "did you mean 'logger'"),
        ("+trainer.max_epochs=3", "Could not append to config"),
        ("backbone=größe", "there is no backbone=größe.*vgg16"),
        ("data.root=${nothing}", "Interpolation key 'nothing' not found"),
        ("größe=3", "there is no setting 'größe'"),
        ("logger=null", "must be a string or a list"),
    ],
)
def test_wrong_overrides_are_answered_with_the_nearest_right_one(override: str, answer: str) -> None:
    with pytest.raises(ConfigurationError, match=answer):
        check_overrides("train", [override])


@pytest.mark.parametrize(
    "text", ["größe", "a=b", "it's", "(1)", "a#b!", "a 'b' \"c\"", "x{1}.jpg", "[x", "{x", "x]", "a;b&"]
)
def test_what_needs_quotes_is_answered_with_the_quotes_that_work(text: str) -> None:
    command, key, needed = "predict", "source", ["checkpoint=x"]
    values: list[tuple[str, object]] = [(text, text)]
    if not set(text) & set("[]{}'\""):
        values.append((f"[a b, {text}, [3, {text}]]", ["a b", text, [3, text]]))
    for written, meant in values:
        with pytest.raises(ConfigurationError, match="needs quotes: ") as refused:
            check_overrides(command, [f"{key}={written}"])
        (word,) = shlex.split(str(refused.value).rpartition("needs quotes: ")[2])
        check_overrides(command, [word])
        assert OmegaConf.select(compose_config(command, [*needed, word]), key) == meant


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("data=toy,voc2007", "data=toy,voc2007: a list is 'data=\\[toy,voc2007\\]'.*--multirun"),
        ("data.root=a,b.jpg", "a text with a comma 'data.root=\"a,b.jpg\"'"),
        ("optimizer.lr=range(1,3)", "add --multirun"),
    ],
)
def test_several_values_are_refused_without_multirun(override: str, answer: str) -> None:
    with pytest.raises(ConfigurationError, match=answer):
        refuse_sweep([override])


def test_the_nearest_is_found_whatever_the_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "priors").mkdir()
    (tmp_path / "priors" / "mine.yaml").write_text("clip: false\nlevels: null\nown_key: 3\n")
    (tmp_path / "own.yaml").write_text("defaults: [train, _self_]\nown_name: 1\n")
    folder = ["--config-dir", str(tmp_path)]
    for flags in ([f"--config-dir={tmp_path}"], ["--cfg", "job"], ["-i"], ["-m"]):
        monkeypatch.setattr(sys, "argv", ["train", *flags, "trainer.max_epoch=3"])
        with pytest.raises(ConfigurationError, match=r"did you mean 'trainer\.max_epochs'"):
            check_overrides("train", CommandLine.current().overrides)
    monkeypatch.setattr(sys, "argv", ["train", *folder])
    check_overrides("train", ["priors=mine", "priors.own_key=4", "data=toy"])
    for word, answer in (
        ("priors=min", "did you mean 'mine'.*ssd300"),
        ("priors.own_keys=4", r"did you mean 'priors\.own_key'"),
    ):
        with pytest.raises(ConfigurationError, match=answer):
            check_overrides("train", ["priors=mine", word] if "=4" in word else [word])
    monkeypatch.setattr(sys, "argv", ["train", *folder, "--config-name", "own"])
    check_overrides("train", ["own_name=2", "trainer.max_epochs=3"])
    with pytest.raises(ConfigurationError, match="did you mean 'own_name'"):
        check_overrides("train", ["own_nam=2"])
    monkeypatch.setattr(sys, "argv", ["train", "--config-path", str(tmp_path / "priors"), "--config-name", "mine"])
    check_overrides("train", ["own_key=2"])
    with pytest.raises(ConfigurationError, match="did you mean 'own_key'"):
        check_overrides("train", ["own_ky=2"])


@pytest.mark.parametrize(
    "overrides",
    [
        ["backbone=tiny", "backbone.channels=[8,16,32]"],
        ["data=toy", "data.num_train=5"],
        ["optimizer=adamw,sgd", "optimizer.lr=0.1,0.2"],
        ["+trainer.enable_autolog_hparams=false"],
        ["hydra.run.dir=somewhere"],
        ["logger=[csv,wandb]", "logger.wandb.project=mine"],
        ["~callbacks.speed"],
        ["experiment=toy_tiny", "data.num_train=8"],
    ],
)
def test_right_overrides_pass(overrides: list[str]) -> None:
    check_overrides("train", overrides)


def test_an_error_is_found_however_deep_it_is_wrapped() -> None:
    outer = RuntimeError("while instantiating")
    outer.__cause__ = DataError("a/b.xml: object 2 has no area")
    assert str(find_user_error(outer)) == "a/b.xml: object 2 has no area"
    assert find_user_error(RuntimeError("a bug")) is None


def test_an_error_from_a_worker_loses_its_stack_trace() -> None:
    message = "Caught DataError in DataLoader worker process 0.\nTraceback:\n  ...\nssd.DataError: x.jpg: truncated\n"
    assert str(find_user_error(DataError(message))) == "x.jpg: truncated"
    assert isinstance(find_user_error(DataError(message)), UserError)


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


@pytest.mark.parametrize("command", ["train", "predict"])
def test_help_does_not_import_torch(command: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{command}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('ssd_lightning.{command}', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "print('HEAVY', sorted({'torch', 'pytorch_lightning', 'wandb', 'cv2'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"python -m ssd_lightning.{command}" in done.stdout
    assert done.stdout.strip().endswith("HEAVY []")


def test_help_lists_the_recipes_without_reading_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra copies what they say for every group that it lists: three quarters of the time of `--help`."""
    names = {f"{path.stem}.yaml" for path in find_folder("experiments").glob("*.yaml")}
    store = configs.ConfigStore.instance()
    try:
        configs.register_experiments("train", names_only=True)
        assert set(store.list("experiment")) == names
        assert not store.load("experiment/toy_tiny.yaml").node
    finally:
        configs.register_experiments("train")
    assert store.load("experiment/toy_tiny.yaml").node


@pytest.mark.parametrize("data", ["voc0712", "voc2007"])
def test_voc_has_its_twenty_classes_and_its_splits(data: str) -> None:
    config = compose_config("train", [f"data={data}"]).data
    assert tuple(config.class_names) == VOC_CLASSES
    years = {"voc0712": ["VOC2007", "VOC2012"], "voc2007": ["VOC2007"]}[data]
    for stage in ("train", "val"):
        splits = config.module[stage].splits
        assert [Path(split.root).name for split in splits] == years
        assert {split.split for split in splits} == {"trainval"}
    assert [(Path(split.root).name, split.split) for split in config.module.test.splits] == [("VOC2007", "test")]


def test_the_toy_set_has_all_its_classes_whatever_the_images_show() -> None:
    assert list(compose_config("train", ["data=toy"]).data.class_names) == sorted(TOY_CLASSES)


@pytest.mark.parametrize("overrides", [["model=ssd512"], ["backbone=mobilenet_v1"], ["experiment=toy_tiny"]])
def test_priors_auto_fits_what_the_network_brings(overrides: list[str]) -> None:
    """A choice would take the place of the priors that belong to the network's maps."""
    plain = compose_config("train", overrides)
    assert plain.priors.fit is False
    plain.priors.fit = True
    assert compose_config("train", [*overrides, "priors=auto"]) == plain


def test_a_setting_of_another_choice_is_named_with_the_way_out() -> None:
    config = compose_config("train", ["augmentation=none", "+augmentation.photometric=false", "data=toy"])
    with pytest.raises(InstantiationException) as raised:
        instantiate(OmegaConf.create({"augmentation": OmegaConf.to_container(config.augmentation, resolve=True)}))
    assert str(refused_value(raised.value)).endswith("remove it with ~augmentation.photometric")
