"""`python -m ssd_lightning` and `ssd`: the list of the commands, and the way to each."""

import sys

import pytest

from ssd_lightning import __main__
from ssd_lightning.config import find_folder


def test_the_list_has_every_command_with_what_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["ssd"])
    __main__.main()
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert {name for name, _ in lines} == {path.stem for path in find_folder("conf").glob("*.yaml")}
    assert all(len(does) > 20 for _, does in lines)


def test_a_command_is_started_with_its_own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(__main__.runpy, "run_module", lambda name, **how: started.append((name, how, sys.argv)))
    monkeypatch.setattr(sys, "argv", ["ssd", "report", "run=outputs", "--help"])
    __main__.main()
    how = {"run_name": "__main__", "alter_sys": True}
    assert started == [("ssd_lightning.report", how, ["ssd", "run=outputs", "--help"])]


def test_an_unknown_command_is_named_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["ssd", "tran", "experiment=toy_tiny"])
    with pytest.raises(SystemExit, match="'tran'; did you mean 'train'"):
        __main__.main()
