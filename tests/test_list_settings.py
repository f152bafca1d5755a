"""Single values where a list is wanted, at the border and whatever command or file they come from."""

import pytest
from omegaconf import OmegaConf

from ssd_lightning.config import compose_config
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.list_settings import check_lists


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
        check_lists(config)


@pytest.mark.parametrize("command", ["evaluate", "convert", "export", "doctor", "show"])
def test_every_command_that_reads_data_says_so(command: str) -> None:
    config = compose_config(command, ["data=voc_folder", "data.root=x", "data.class_names=cat"])
    with pytest.raises(ConfigurationError, match=r"data\.class_names is 'cat'"):
        check_lists(config)


def test_what_may_be_one_value_or_a_list_stays() -> None:
    overrides = ["data=toy", "image_size=300", "trainer.devices=[0,1]", "data.class_names=['1',no,cat]"]
    check_lists(compose_config("train", overrides))
    check_lists(compose_config("train", ["experiment=bccd_paper", "data.root=x", "logger=[csv,wandb]"]))


def test_what_cannot_be_found_is_left_to_those_who_make_it() -> None:
    check_lists(OmegaConf.create({"a": {"_target_": "nowhere.Thing", "values": "x"}, "b": "${c}", "d": "???"}))
