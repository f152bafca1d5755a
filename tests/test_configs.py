import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ssd_lightning import configs
from ssd_lightning.configs import check_overrides, compose_config, find_folder, find_user_error
from ssd_lightning.data.augmentation import SSDAugmentation
from ssd_lightning.data.voc import VOC_CLASSES
from ssd_lightning.errors import ConfigurationError, DataError, UserError
from ssd_lightning.training import DetectionDataModule

CONF = find_folder("conf")
PRIORS_OF_TINY = {"priors=tiny", "extras=tiny"}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def build_net(config: DictConfig, num_classes: int = 3) -> torch.nn.Module:
    return instantiate(config.net, num_classes=num_classes, _convert_="all")


@pytest.mark.parametrize("backbone", options("backbone"))
def test_a_backbone_needs_one_word(backbone: str) -> None:
    net = build_net(compose_config("train", [f"backbone={backbone}"]))
    assert len(net.priors_cxcywh) == (5444 if backbone == "tiny" else 8732)


@pytest.mark.parametrize("priors", options("priors"))
def test_priors_compose_with_a_network_that_fits(priors: str) -> None:
    config = compose_config("train", [f"priors={priors}", *(["backbone=tiny"] if priors == "tiny" else [])])
    assert len(build_net(config).priors_cxcywh) == (5444 if priors == "tiny" else 8732)


def test_the_command_line_has_the_last_word_over_what_a_backbone_brings() -> None:
    with pytest.raises(Exception, match=r"32x32 +38x38") as caught:
        build_net(compose_config("train", ["backbone=tiny", "priors=ssd300_voc", "image_size=[256,256]"]))
    assert isinstance(find_user_error(caught.value), ConfigurationError)


@pytest.mark.parametrize("data", options("data"))
def test_data_sets_compose_and_instantiate(data: str) -> None:
    root = ["data.root=nowhere"] if data == "voc_folder" else []
    config = compose_config("train", [f"data={data}", *root])
    module = instantiate(config.data.module, _convert_="all")
    assert isinstance(module, DetectionDataModule)
    assert module.has("train")
    assert module.has("val")
    assert module.has("test")


@pytest.mark.parametrize("data", options("data"))
def test_validation_and_training_pictures_are_not_the_same(data: str) -> None:
    root = ["data.root=nowhere"] if data == "voc_folder" else []
    module = compose_config("train", [f"data={data}", *root]).data.module
    train, val = (OmegaConf.to_container(module[stage], resolve=True) for stage in ("train", "val"))
    parts = (train.get("part"), val.get("part"))
    splits = (train["splits"], val["splits"])
    assert parts == ("train", "val") or splits[0] != splits[1]


@pytest.mark.parametrize("group", ["optimizer", "scheduler", "loss", "augmentation"])
def test_other_groups_instantiate(group: str) -> None:
    for option in options(group):
        config = compose_config("train", [f"{group}={option}"])
        assert callable(instantiate(config[group], _convert_="all"))


def test_the_paper_is_the_default() -> None:
    config = compose_config("train")
    assert (config.loss.matcher, config.loss.negative_ratio, config.loss.min_negatives) == ("bipartite", 3.0, 0)
    assert (config.optimizer.lr, config.optimizer.momentum, config.optimizer.weight_decay) == (1e-3, 0.9, 5e-4)
    assert (config.bias_lr_factor, config.decay_biases, config.data.batch_size) == (2.0, False, 32)
    assert config.net.clip_priors is False
    assert isinstance(instantiate(config.augmentation, _convert_="all"), SSDAugmentation)
    # 120k of the paper's steps are 232 epochs of 16,551 pictures
    assert abs(config.trainer.max_epochs * (16551 // 32) - 120_000) < 120_000 // config.trainer.max_epochs
    assert [round(milestone * 120) for milestone in config.scheduler.milestones] == [80, 100]


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
    assert len(build_net(config).priors_cxcywh) > 0
    assert instantiate(config.data.module, _convert_="all").has("test")


@pytest.mark.parametrize("experiment", sorted(find_folder("experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_short(experiment: Path) -> None:
    lines = [line for line in experiment.read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 17


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("trainer.max_epoch=3", "did you mean 'trainer.max_epochs'"),
        ("optimzer.lr=1", "did you mean 'optimizer.lr'"),
        ("lr=0.1", "did you mean 'optimizer.lr'"),
        ("loger=csv", "did you mean 'logger'"),
        ("backbone=vgg61", "did you mean 'vgg16'.*tiny, vgg16, vgg16_bn"),
        ("experiment=toy_tinny", "did you mean 'toy_tiny'"),
        ("logger=[csv,wand]", "did you mean 'wandb'"),
        ("backbone", "'backbone' is no key=value"),
        ("data.num_workers=[1", "."),
        ("logger=null", "must be a string or a list"),
    ],
)
def test_wrong_words_are_answered_with_the_nearest_right_one(override: str, answer: str) -> None:
    with pytest.raises(ConfigurationError, match=answer):
        check_overrides("train", [override])


@pytest.mark.parametrize(
    "overrides",
    [
        ["backbone=tiny", "backbone.channels=[8,16,32]"],
        ["data=toy", "data.num_train=5"],
        ["optimizer=adamw,sgd", "optimizer.lr=0.1,0.2"],
        ["+trainer.enable_autolog_hparams=false"],
        ["hydra.run.dir=somewhere"],
        ["logger=[csv,wandb]", "logger.wandb.project=mine"],
        ["~callbacks.throughput"],
        ["experiment=toy_tiny", "data.num_train=8"],
    ],
)
def test_right_words_pass(overrides: list[str]) -> None:
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


@pytest.mark.parametrize(("command", "flag"), itertools.product(["train", "evaluate", "predict"], ["--help"]))
def test_help_does_not_import_torch(command: str, flag: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{command}', '{flag}']\n"
        "try:\n"
        f"    runpy.run_module('ssd_lightning.{command}', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "print('HEAVY', sorted({'torch', 'pytorch_lightning', 'wandb', 'cv2'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"python -m ssd_lightning.{command}" in done.stdout
    assert done.stdout.strip().endswith("HEAVY []")


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
