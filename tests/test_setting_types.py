"""Values of a wrong type, at the border and whatever command or file they come from."""

import subprocess
import sys

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from ssd_lightning.config import compose_config
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.overrides import missing_keys
from ssd_lightning.setting_types import check_types


@pytest.mark.parametrize(
    ("key", "value", "answer"),
    [
        ("augmentation.contrast", 0.5, "it takes a list of 2: 'augmentation.contrast=[0.5,0.5]'"),
        ("data.class_names", "cat", "data.class_names is 'cat'; it takes a list: 'data.class_names=[cat]'"),
        ("data.class_names", "cat,red dog", "'data.class_names=[cat,red dog]'"),
        ("data.class_names", "größe", "'data.class_names=[\"größe\"]'"),
        ("data.class_names", 7, "data.class_names is 7; it takes a list"),
        ("data.class_names", ["cat", 10, "010"], "data.class_names holds 10, .*'data.class_names=[cat,\"10\",010]'"),
        ("augmentation.extra_transforms", "ToGray", "augmentation.extra_transforms is 'ToGray'"),
        ("image_size", "large", "image_size is 'large'"),
        ("extras.channels", 16, "extras.channels is 16"),
    ],
)
def test_one_value_for_a_list_is_answered_with_the_list(key: str, value: object, answer: str) -> None:
    config = compose_config("train", ["data=toy", "model=tiny_ssd"])
    OmegaConf.update(config, key, value)
    with pytest.raises(ConfigurationError, match=answer.replace("[", r"\[").replace("]", r"\]")):
        check_types(config, "train")


@pytest.mark.parametrize("command", ["evaluate", "convert", "export", "doctor", "show"])
def test_every_command_that_reads_data_says_so(command: str) -> None:
    config = compose_config(command, ["data=voc_folder", "data.root=x", "data.class_names=cat"])
    with pytest.raises(ConfigurationError, match=r"data\.class_names is 'cat'"):
        check_types(config, command)


@pytest.mark.parametrize(
    ("command", "override", "answer"),
    [
        ("train", "optimizer.nesterov=abc", "optimizer.nesterov is 'abc'; it must be true or false"),
        ("train", "optimizer.lr=null", "optimizer.lr is null; it must be a number"),
        ("train", "optimizer.weight_decay=nan", "optimizer.weight_decay is nan; it must be a number"),
        ("train", "optimizer._partial_=abc", "optimizer._partial_ is 'abc'; it must be true or false"),
        ("train", "extras._target_=null", "extras._target_ is null; it must be text"),
        ("train", "data.root=null", "data.root is null; it must be text"),
        ("train", "data.root=", "data.root is empty; it must be text"),
        ("train", "data.root=2024", "data.root is 2024; it must be text; .*: 'data.root=\"2024\"'"),
        ("train", "data.module=abc", "data.module is 'abc'; it must be a mapping"),
        ("train", "data.module.dataset=abc", "data.module.dataset is 'abc'; it must be a DatasetOpener"),
        ("train", "data.module.val.splits=[abc]", "data.module.val.splits is ['abc']; it must be a list"),
        ("train", "data.train_difficult=abc", "data.train_difficult is 'abc'; it must be true or false"),
        ("train", "loss.matcher=null", "loss.matcher is null; it must be a Matcher"),
        ("train", "priors.clip=abc", "priors.clip is 'abc'; it must be true, false or size"),
        ("train", "trainer.devices=null", "it must be text, a whole number or a list (each a whole number)"),
        (
            "train",
            "augmentation.fill=[1,2]",
            "augmentation.fill is [1, 2]; it must be a list of 3 (each a whole number)",
        ),
        ("train", "image_size=null", "image_size is null"),
        ("train", "logger.wandb.tags=fast", "logger.wandb.tags is 'fast'; it takes a list: 'logger.wandb.tags=[fast]'"),
        ("train", "channels_last=abc", "channels_last is 'abc'; it must be true or false"),
        ("train", "name=null", "name is null; it needs a value: name=VALUE"),
        ("doctor", "report=1", "report is 1; it must be true or false"),
        ("evaluate", "checkpoint=null", "checkpoint is null; it needs a value"),
        ("evaluate", "num_visualizations=abc", "num_visualizations is 'abc'; it must be a number"),
        ("evaluate", "postprocess=abc", "postprocess is 'abc'; it must be a mapping"),
        ("predict", "output=null", "output is null; it needs a value"),
        ("predict", "save=3", "save is 3; it must be text, a list (each text) or null"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_with_what_it_can_be(command: str, override: str, answer: str) -> None:
    data = [] if command == "predict" else ["data=toy", "logger=wandb"] if command == "train" else ["data=toy"]
    config = compose_config(command, [*data, *["model=tiny_ssd"] * (command == "train"), override])
    with pytest.raises(ConfigurationError, match=answer.replace("[", r"\[").replace("(", r"\(").replace(")", r"\)")):
        check_types(config, command)


@pytest.mark.parametrize("command", ["train", "doctor", "show", "evaluate", "convert", "export", "predict", "report"])
def test_the_defaults_of_every_command_have_the_right_types(command: str) -> None:
    check_types(compose_config(command, [] if command in ("predict", "report") else ["data=toy"]), command)


def test_what_hydra_fills_in_is_only_known_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    unfilled = OmegaConf.create({"hydra": {"runtime": {"output_dir": None}}})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", unfilled)
    check_types(compose_config("train", ["data=toy"]), "train")


def test_the_check_of_a_trained_detectors_data_imports_no_lightning() -> None:
    task = """
import sys
from ssd_lightning.config import compose_config
from ssd_lightning.setting_types import check_types
check_types(compose_config("evaluate", ["data=toy"]), "evaluate")
print("pytorch_lightning" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", task], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_may_be_one_value_or_a_list_stays() -> None:
    overrides = ["data=toy", "image_size=300", "trainer.devices=[0,1]", "data.class_names=['1',no,cat]"]
    check_types(compose_config("train", overrides), "train")
    check_types(compose_config("report", ["run=[0,1]"]), "report")  # jobs of a sweep
    check_types(compose_config("train", ["experiment=bccd_paper", "data.root=x", "logger=[csv,wandb]"]), "train")


@pytest.mark.parametrize("key", ["7", "true", "1.5", "a.b"])
def test_names_of_classes_that_are_numbers_or_have_dots_are_keys_too(key: str) -> None:
    config = compose_config("train", ["data=toy", f"data.merge_classes={{{key}:[disk,ring]}}"])
    assert list(missing_keys(config)) == []
    check_types(config, "train")


def test_what_cannot_be_found_is_left_to_those_who_make_it() -> None:
    config = OmegaConf.create({"a": {"_target_": "nowhere.Thing", "values": "x"}, "b": "${c}", "d": "???"})
    check_types(config, "nothing")
