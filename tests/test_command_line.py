"""The laws of a command line that is read before Hydra reads it."""

import shlex
from pathlib import Path

import pytest

from ssd_lightning.command_line import CONFIG_PATH_FLAGS, CommandLine, spell_out, warn_without
from ssd_lightning.errors import ConfigurationError


def line(text: str) -> CommandLine:
    return CommandLine(tuple(shlex.split(text)))


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("data=toy -m seed=1,2", ["data=toy", "seed=1,2"]),
        ("--config-name own data=toy", ["data=toy"]),
        ("-cp folder=x --cfg job data=toy", ["data=toy"]),
        ("--info config data=toy", ["data=toy"]),
        ("-i data=toy backbone", ["data=toy", "backbone"]),
    ],
)
def test_what_is_neither_a_flag_nor_its_value_is_an_override(text: str, overrides: list[str]) -> None:
    assert line(text).overrides == overrides


def test_a_setting_without_the_one_that_it_belongs_to_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["predict", "+overlap=.5", "save=[]"])
    warn_without("tiles", "overlap", "whole_image")
    assert caplog.messages == ["overlap= has no effect without tiles="]


def test_a_folder_of_configurations_counts_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for text in ("seed=1 --config-path mine -m", "seed=1 -cp=mine -m"):
        found = line(text).with_absolute_config_path("train")
        assert found.value_of(CONFIG_PATH_FLAGS) == str(tmp_path / "mine")
        assert found.overrides == ["seed=1"]
        assert found.is_multirun
    for text in ("seed=1", "--config-path pkg://mine"):
        assert line(text).with_absolute_config_path("train") == line(text)


@pytest.mark.parametrize("flag", ["--config-path", "--config-dir"])
def test_a_folder_that_is_not_there_is_refused_by_name(flag: str) -> None:
    for text in (f"{flag}=nowhere", f"{flag} nowhere"):
        with pytest.raises(ConfigurationError, match=f"{flag}=nowhere"):
            line(text).with_absolute_config_path("train")


def test_a_run_is_repeated_by_the_folder_that_hydra_left(tmp_path: Path) -> None:
    kept = tmp_path / ".hydra"
    kept.mkdir()
    for name in ("config.yaml", "hydra.yaml"):
        (kept / name).write_text("")
    assert line(f"-cp {kept}").repeated_run == tmp_path
    assert line(f"-cp {kept} -cn own").repeated_run is None
    assert line("seed=1").repeated_run is None
    with pytest.raises(ConfigurationError, match=f"--config-path={kept}"):
        line(f"-cp {tmp_path}").with_absolute_config_path("train")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("data.root=~/my images", "data.root=/home/me/my images"),
        ("+output='~/a=b'", "+output='/home/me/a=b'"),
        ('source="~/größe"', 'source="/home/me/größe"'),
        ("output=a~/b", "output=a~/b"),
        ("~callbacks.dashboard", "~callbacks.dashboard"),
    ],
)
def test_the_home_folder(monkeypatch: pytest.MonkeyPatch, given: str, expected: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert spell_out([given]) == [expected]
