"""What the page on sweeps tells people to type."""

import shlex
from pathlib import Path

import pytest

from ssd_lightning.config import check_overrides, compose_config
from ssd_lightning.sweeps.plan import plan_sweep, what_is_swept

PAGE = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("python -m ssd_lightning.train ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_sweeps_of_what_exists(line: str) -> None:
    arguments = shlex.split(line.removeprefix("python -m ssd_lightning.train "))
    planned = plan_sweep(arguments, [word for word in arguments if "=" in word])
    overrides = [word for word in planned if "=" in word]
    check_overrides("train", overrides)
    assert planned[0] == "--multirun"
    swept = what_is_swept(overrides)
    assert swept
    single = [word for word in overrides if word.partition("=")[0] not in swept]
    config = compose_config("train", single)
    assert config.sweep.name.startswith("sweep_")


def test_entries_of_the_tables_are_settings() -> None:
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    arguments = [word for cell in cells for quoted in cell.split("`")[1::2] for word in shlex.split(quoted)]
    assert len(arguments) > 10
    for word in arguments:
        check_overrides("train", [word] if word.startswith("sweep=") else ["sweep=tpe", word])
