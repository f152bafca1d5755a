"""What W&B is told about where a run belongs. Nothing is sent."""

from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate

from ssd_lightning.config import compose_config, find_folder

ROOMS = ("WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_TAGS")


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Give what the logger of a composed configuration would hand to `wandb.init`."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ROOMS:
        monkeypatch.delenv(name, raising=False)

    def compose(*overrides: str) -> dict[str, object]:
        config = compose_config("train", ["logger=wandb", *overrides])
        config.logger.wandb.save_dir = str(tmp_path)
        return instantiate(config.logger.wandb, _convert_="all")._wandb_init

    return compose


def test_the_runs_of_a_recipe_are_one_group(told) -> None:  # type: ignore[no-untyped-def]
    settings = told("experiment=toy_tiny")
    assert {key: settings[key] for key in ("name", "group", "job_type", "tags")} == {
        "name": "toy_tiny", "group": "toy_tiny", "job_type": "train", "tags": ["toy_tiny"],
    }  # fmt: skip


def test_a_sweep_tells_its_jobs_by_variables(told, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    for name, value in zip(ROOMS, ("rates/3", "rates", "optimizer.lr=0.003", "rates,mine,toy_tiny"), strict=True):
        monkeypatch.setenv(name, value)
    settings = told("experiment=toy_tiny")
    assert {key: settings[key] for key in ("name", "group", "job_type", "tags")} == {
        "name": "rates/3", "group": "rates", "job_type": "optimizer.lr=0.003", "tags": ["toy_tiny", "rates", "mine"],
    }  # fmt: skip


def test_settings_have_the_last_word(told, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("WANDB_RUN_GROUP", "rates")
    settings = told("logger.wandb.group=mine", "logger.wandb.tags=[a,b]")
    assert (settings["group"], settings["tags"]) == ("mine", ["a", "b"])


def test_the_shipped_sweep_asks_for_what_exists() -> None:
    """`wandb sweep` runs a command with a word for each parameter: all of them have to be ours."""
    shipped = yaml.safe_load((find_folder("experiments") / "sweeps" / "wandb_sweep.yaml").read_text())
    command = shipped["command"]
    assert command[:5] == ["${env}", "python", "-m", "ssd_lightning.train", "logger=[csv,wandb]"]
    assert command[-1] == "${args_no_hyphens}"
    overrides = [
        f"{key}={(setting.get('values') or [setting.get('min')])[0]}" for key, setting in shipped["parameters"].items()
    ]
    config = compose_config("train", [*command[4:-1], *overrides])
    assert shipped["metric"] == {"name": config.objective, "goal": "maximize"}
