"""The command that writes pages of runs, in one process."""

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from helpers.commands import output_of, refused
from helpers.evaluation_records import planted_record
from ssd_lightning.commands import report
from ssd_lightning.config import compose_config
from ssd_lightning.errors import ConfigurationError, UserError
from ssd_lightning.reporting.page import require_own_page

Run = Callable[..., str]

METRICS = "epoch,loss,step,val/map_11point\n0,2.5,9,\n0,,9,0.25\n1,2.0,19,\n1,,19,0.5\n"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return partial(output_of, tmp_path, "report")


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs of one configuration, of different seeds. They have no records, whose plots take most of the time."""
    directories = [tmp_path / "sweep" / str(seed) for seed in range(2)]
    for seed, directory in enumerate(directories):
        directory.mkdir(parents=True)
        (directory / "metrics.csv").write_text(METRICS)
        (directory / "config.yaml").write_text(f"seed: {seed}\nname: toy\n")
        (directory / "run.json").write_text(json.dumps({"seed": seed}))
    return directories


def test_a_page_of_one_run_lies_in_its_directory(run: Run, runs: list[Path]) -> None:
    place = runs[0] / "report.html"
    for output in ([], ["output=sweep/0/report.html"]):
        place.write_text("of an older version")  # it is rewritten, whatever lies there
        assert run("run=sweep/0", *output) == "report: sweep/0/report.html\n"
        assert "Written by ssd_lightning" in place.read_text()
    planted_record().save(runs[0] / "evaluations" / "val.npz")
    run("run=sweep/0", "output=pages/one.html")
    assert "0.500" in (runs[0].parents[1] / "pages" / "one.html").read_text()


REFRESH = '<meta http-equiv="refresh" content="7">'


def test_a_live_page_refreshes_itself_until_the_run_ends(
    run: Run, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, log = runs[0] / "report.html", runs[0] / "metrics.csv"
    log.unlink()
    seen = []

    def next_moment(seconds: float) -> None:
        seen.append(page.read_text() if page.is_file() else "")
        if len(seen) == 3:
            (runs[0] / "result.json").write_text("{}")
        else:
            log.write_text("\n".join(METRICS.splitlines()[: 1 + 2 * len(seen)]) + "\n")

    monkeypatch.setattr(time, "sleep", next_moment)
    printed = run("run=sweep/0", "live=true", "interval_s=7")
    assert [(REFRESH in html, "0.250" in html, "0.500" in html) for html in [*seen, page.read_text()]] == [
        (False, False, False), (True, True, False), (True, False, True), (False, False, True),
    ]  # fmt: skip
    assert printed.endswith("report: sweep/0/report.html\n")


def test_a_live_page_says_once_that_its_run_may_have_been_stopped(
    run: Run, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in runs[0].rglob("*"):
        os.utime(path, (0, 0))
    moments = iter([lambda: None, lambda: None, lambda: (runs[0] / "result.json").write_text("{}")])
    monkeypatch.setattr(time, "sleep", lambda seconds: next(moments)())
    assert run("run=sweep/0", "live=true").count("sweep/0: nothing has changed for 10 min") == 1


def test_a_live_page_that_is_interrupted_refreshes_itself_no_more(
    run: Run, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        assert REFRESH in (runs[0] / "report.html").read_text()
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(SystemExit) as end:
        run("run=sweep/0", "live=true", "interval_s=7")
    assert end.value.code == 130
    assert REFRESH not in (runs[0] / "report.html").read_text()


def test_several_runs_are_compared(run: Run, runs: list[Path], tmp_path: Path) -> None:
    run("run=[sweep/0,sweep/1]")
    run("run=sweep")
    for path in (tmp_path / "comparison.html", tmp_path / "sweep" / "comparison.html"):
        assert "2 runs of one configuration" in path.read_text()
        assert "0.500 ± 0.000" in path.read_text()
    assert not list(tmp_path.glob("*.log"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run=sweep/0", "output=sweep/0/run.json/x.html"], "cannot be written to"),
        (["run=sweep", "output=mine.html"], "output=mine.html already exists and is not a page of this command"),
        (["run=sweep", "live=true"], "live=true follows one run"),
        (["run=sweep/0", "live=true", "interval_s=0"], "interval_s is 0"),
        (["run=[]"], r"run=\[\] is empty"),
        (["run=[sweep/0,sweep/1,sweep/0]"], "sweep/0 is given twice"),
    ],
)
def test_what_cannot_be_shown_changes_no_file(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.html").write_text("<!doctype html><title>mine</title>")
    before = files_below(tmp_path)
    with pytest.raises(UserError, match=said):
        report.report(compose_config("report", arguments))
    assert files_below(tmp_path) == before


def test_a_run_that_was_never_evaluated_is_said_beside_its_page(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs[0] / "metrics.csv").write_text("epoch,loss,step\n0,2.5,9\n1,2.0,19\n")
    assert "sweep/0: this run was never evaluated" in refused(capsys, tmp_path, "report", "run=sweep/0")
    assert (runs[0] / "report.html").is_file()


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("sweep/0/config.yaml", "does not end in .html"),
        ("sweep", "does not end in .html"),
        (".html", "does not end in .html"),
        ("link.html", ".* is not a page of this command"),
    ],
)
def test_a_file_that_is_no_page_is_never_written_over(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link.html").symlink_to(runs[0] / "config.yaml")
    with pytest.raises(ConfigurationError, match=f"output={output} {said}"):
        require_own_page(Path(output), runs)


def test_a_page_of_its_own_runs_is_rewritten_and_one_of_others_is_not(
    run: Run, runs: list[Path], tmp_path: Path
) -> None:
    one, sweep, later = tmp_path / "one.html", tmp_path / "sweep.html", tmp_path / "later"
    run("run=sweep/0", "output=one.html")
    run("run=sweep", "output=sweep.html")
    for output, named in ((one, runs), (sweep, runs[:1]), (sweep, [runs[0], later])):
        with pytest.raises(ConfigurationError, match=f"output={output} is a page of other runs"):
            require_own_page(output, named)
    require_own_page(one, runs[:1])
    require_own_page(sweep, [*runs, later])  # which has grown


def files_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
