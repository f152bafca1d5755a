"""From the command line to the task: one composition, and what is refused on the way."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from helpers.commands import refused, run_command
from ssd_lightning.config import compose_config
from ssd_lightning.run_command import refused_value


def test_a_command_composes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    composed, load = [], ConfigLoaderImpl.load_configuration

    def count(*arguments: object, **settings: object) -> object:
        composed.append(settings)
        return load(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", count)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("epoch,loss,step,val/map_11point\n0,,9,0.25\n")
    run_command(tmp_path, "report", "run=run", "output=page.html")
    assert (tmp_path / "page.html").is_file()
    assert len(composed) == 1


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("outptu=a.html", "there is no setting 'outptu'; did you mean 'output'"),
        ("output=a,b.html", "--multirun"),
        ("output=${nothing}", "Interpolation key 'nothing' not found"),
        ("hydra.run.dir=${nothing}", "Interpolation key 'nothing' not found"),
        ("hydra/job_logging=nothing", "hydra/job_logging"),
    ],
)
def test_what_cannot_be_composed_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, answer: str
) -> None:
    assert answer in refused(capsys, tmp_path, "report", "run=run", override)
    assert not list(tmp_path.iterdir())


def test_types_are_checked_in_each_of_several_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, tmp_path, "predict", "source=x", "checkpoint=3,4", "--multirun")
    assert message.startswith("error: checkpoint is 3; it must be text")


def test_a_run_directory_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    message = refused(capsys, tmp_path, "show", "what=priors", "hydra.run.dir=file/run")
    assert message == "error: file/run: Not a directory"


@pytest.mark.parametrize("command", ["train", "doctor", "show"])
def test_what_needs_unix_says_so_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setattr("ssd_lightning.run_command.sys.platform", "win32")
    assert "does not run on Windows: run it in WSL" in refused(capsys, tmp_path, command)


def test_an_error_that_is_not_the_users_keeps_its_stack_trace(tmp_path: Path) -> None:
    task = "import sys; from ssd_lightning.run_command import run_command; run_command('report', ord)"
    done = subprocess.run(
        [sys.executable, "-c", task, "run=run"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("TypeError: ord() expected")


def test_a_setting_of_another_choice_is_named_with_the_way_out() -> None:
    config = compose_config("train", ["augmentation=none", "+augmentation.photometric=false", "data=toy"])
    with pytest.raises(InstantiationException) as raised:
        instantiate(OmegaConf.create({"augmentation": OmegaConf.to_container(config.augmentation, resolve=True)}))
    assert str(refused_value(raised.value)).endswith("remove it with ~augmentation.photometric")


@pytest.mark.parametrize(
    ("key", "setting"),
    [
        ("data.module.augmentation", "augmentation"), ("levels", "priors.levels"), ("loss.matcher", "loss.matcher"),
        ("callbacks.best", "callbacks.best"),
    ],
)  # fmt: skip
def test_the_way_out_is_a_setting_that_there_is(key: str, setting: str) -> None:
    error = InstantiationException(f"Error in call to target 'x.Thing':\nfull_key: {key}")
    error.__cause__ = TypeError("Thing.__init__() got an unexpected keyword argument 'scales'")
    told = str(refused_value(error))
    assert told.startswith(f"{setting}: Thing.__init__() got")
    assert told.endswith(f"remove it with ~{setting}.scales")
