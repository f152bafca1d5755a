"""What the page on sweeps tells people to type."""

import shlex
from pathlib import Path

from ssd_lightning.command_line import CommandLine
from ssd_lightning.config import check_overrides
from ssd_lightning.sweeps.plan import plan_sweep, what_is_swept

PAGE = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("python -m ssd_lightning.train ")]


def test_commands_are_sweeps() -> None:
    """Of what exists: test_docs.py."""
    assert len(COMMANDS) > 3
    for line in COMMANDS:
        typed = CommandLine(tuple(shlex.split(line.removeprefix("python -m ssd_lightning.train "))))
        planned = plan_sweep(typed).arguments
        assert planned[0] == "--multirun", line
        assert what_is_swept([word for word in planned if "=" in word]), line
        assert any(word.startswith("sweep.name=sweep_") for word in planned), line


def test_entries_of_the_tables_are_settings() -> None:
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    arguments = [word for cell in cells for quoted in cell.split("`")[1::2] for word in shlex.split(quoted)]
    assert len(arguments) > 10
    for word in arguments:
        check_overrides("train", [word] if word.startswith("sweep=") else ["sweep=tpe", word])
