"""Commands in this process, as a user types them."""

import importlib
import io
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from ssd_lightning import run_dirs

TOY = ["data.num_train=24", "data.num_val=5", "data.num_test=7", "data.side_px=96", "data.num_workers=0"]
WHOLE = [
    "experiment=toy_tiny", *TOY, "data.batch_size=8", "image_size=[64,64]", "trainer.max_epochs=2",
    "trainer.check_val_every_n_epoch=1", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
]  # fmt: skip
SMALL = [*WHOLE, "report=false", "callbacks.dashboard=null"]  # drawings take half of the time


def run_command(folder: Path, name: str, *arguments: str) -> None:
    """Run `python -m ssd_lightning.NAME ARGUMENTS` in a folder; what has to end it is raised as `SystemExit`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [name, *arguments])
        patch.setattr(run_dirs, "_chosen", {})  # of this process
        GlobalHydra.instance().clear()
        importlib.import_module(f"ssd_lightning.{name}").main()


def output_of(folder: Path, name: str, *arguments: str) -> str:
    """Run a command and return what it prints and logs."""
    with redirect_stdout(io.StringIO()) as printed:
        run_command(folder, name, *arguments)
    return printed.getvalue()


def refused(capsys: pytest.CaptureFixture[str], folder: Path, name: str, *arguments: str) -> str:
    """Run what has to fail and give the message: one error in one line, no stack trace, exit code 2."""
    capsys.readouterr()  # of what ran before
    with pytest.raises(SystemExit) as end:
        run_command(folder, name, *arguments)
    *before, message = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2
    assert message.startswith("error: ")
    assert "Traceback" not in "".join(before)
    return message
