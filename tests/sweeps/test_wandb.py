"""What W&B is told about where a run belongs. Nothing is sent."""

from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate

from ssd_lightning.config import compose_config, find_folder

PLACES = ("name", "group", "job_type", "tags")
VARIABLES = ("WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_TAGS")


@pytest.mark.parametrize(
    ("overrides", "variables", "told"),
    [
        (["experiment=toy_tiny"], {}, ("toy_tiny", "toy_tiny", "train", ["toy_tiny"])),
        (  # a sweep tells its jobs by variables
            ["experiment=toy_tiny"],
            dict(zip(VARIABLES, ("rates/3", "rates", "optimizer.lr=0.003", "rates,mine,toy_tiny"), strict=True)),
            ("rates/3", "rates", "optimizer.lr=0.003", ["toy_tiny", "rates", "mine"]),
        ),
        (  # settings have the last word
            ["logger.wandb.group=mine", "logger.wandb.tags=[a,b]"],
            {"WANDB_RUN_GROUP": "rates"},
            ("ssd", "mine", "train", ["a", "b"]),
        ),
    ],
)
def test_what_is_handed_to_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], variables: dict[str, str], told: tuple
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = compose_config("train", ["logger=wandb", *overrides])
    config.logger.wandb.save_dir = str(tmp_path)
    settings = instantiate(config.logger.wandb, _convert_="all")._wandb_init
    assert tuple(settings[place] for place in PLACES) == told


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
