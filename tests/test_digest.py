import copy

import pytest

from ssd_lightning.digest import config_digest, differences

CONFIG = {
    "seed": 0,
    "resume": None,
    "data": {"batch_size": 8, "num_workers": 2, "splits": [{"root": "a", "num_workers": 1}]},
    "callbacks": {"best": {"dirpath": "here", "monitor": "val/map"}},
}


def test_what_has_no_effect_on_the_weights_changes_nothing() -> None:
    other = copy.deepcopy(CONFIG)
    other |= {"resume": "auto", "logger": {"csv": 1}}
    other["data"] |= {"num_workers": 7}
    other["data"]["splits"][0]["num_workers"] = 3
    other["callbacks"]["best"]["dirpath"] = "there"
    assert config_digest(other) == config_digest(CONFIG)
    assert differences(CONFIG, other) == []


def test_the_order_of_keys_changes_nothing() -> None:
    assert config_digest(dict(reversed(CONFIG.items()))) == config_digest(CONFIG)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"more": None}, "more: nothing -> None"),
        ({"data": {**CONFIG["data"], "batch_size": 9}}, "data.batch_size: 8 -> 9"),
    ],
)
def test_everything_else_does_and_is_named(change: dict, said: str) -> None:
    other = {**CONFIG, **change}
    assert config_digest(other) != config_digest(CONFIG)
    assert differences(CONFIG, other) == [said]


def test_it_is_the_same_in_every_process() -> None:
    assert config_digest({"a": 1}) == "165b44bb3d3e0923"


def test_a_setting_that_is_used_in_several_places_is_named_once() -> None:
    def config(lr: float, seed: int) -> dict[str, object]:
        return {"seed": seed, "data": {"seed": seed, "module": {"seed": seed}}, "one": {"lr": lr}, "two": {"lr": 0}}

    assert differences(config(1, 2), config(3, 4)) == ["one.lr: 1 -> 3", "seed: 2 -> 4"]
