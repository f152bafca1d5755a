"""Searches. Jobs only pretend to train."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.sweeps.pruning import find_pruning, open_study
from ssd_lightning.sweeps.records import FAILED, FINISHED, PRUNED, read_jobs

optuna = pytest.importorskip("optuna")
from ssd_lightning.sweeps.search import read_space  # noqa: E402

FloatDistribution, IntDistribution = optuna.distributions.FloatDistribution, optuna.distributions.IntDistribution
Categories = optuna.distributions.CategoricalDistribution

Sweep = Callable[..., int]
FEW = ("experiment=toy_tiny", "trainer.max_epochs=2")
RATES = "optimizer.lr=tag(log,interval(1e-4,1e-2))"


@pytest.mark.parametrize(
    ("overrides", "distribution"),
    [
        ("a=interval(0.5,2.0)", FloatDistribution(0.5, 2.0)),
        ("a=interval(1,8)", FloatDistribution(1, 8)),
        ("a=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("a=tag(log,int(interval(4,64)))", IntDistribution(4, 64, log=True)),
        ("a=int(interval(1.0,8.0))", IntDistribution(1, 8)),
        ("a=range(2,9)", IntDistribution(2, 8)),
        ("a=range(2,9,3)", IntDistribution(2, 8, step=3)),
        ("a=range(0.5,2,0.5)", FloatDistribution(0.5, 1.5, step=0.5)),
        ("a=choice(x,y)", Categories(["x", "y"])),
        ("a=16,32", Categories(["16", "32"])),
        ("a=[300,300],[512,512]", Categories(["[300,300]", "[512,512]"])),
        ("+a=x,'y z'", Categories(["x", "'y z'"])),
    ],
)
def test_spaces_are_written_as_hydras_overrides(overrides: str, distribution: object) -> None:
    fixed, space = read_space(["b=1", overrides, "~c"])
    assert fixed == ["b=1", "~c"]
    assert space == {overrides.partition("=")[0]: distribution}


@pytest.mark.parametrize(
    ("override", "answer"),
    [("a=1", "nothing to search"), ("a=interval(2,1)", "a=interval"), ("a=tag(log,interval(0,1))", "log")],
)
def test_what_cannot_be_searched(override: str, answer: str) -> None:
    with pytest.raises(ConfigurationError, match=answer):
        read_space([override])


def test_a_search_finds_and_remembers(sweep: Sweep, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    overrides = ("sweep=random", *FEW, RATES, "sweep.name=search", "sweep.pruner=null")
    assert sweep(*overrides, "sweep.n_trials=2") == 0
    directory = tmp_path / "outputs" / "toy_tiny" / "search"
    first = [job for _, job in read_jobs(directory)]
    assert [job.status for job in first] == [FINISHED] * 2
    assert len({job.settings()["optimizer.lr"] for job in first}) == 2
    assert all(1e-4 <= float(job.settings()["optimizer.lr"]) <= 1e-2 for job in first)
    study = open_study(directory)
    assert [trial.value for trial in study.trials] == pytest.approx([job.objective for job in first])
    assert sweep(*overrides, "sweep.n_trials=3") == 0  # one more, and not one of before
    jobs = [job for _, job in read_jobs(directory)]
    assert jobs[:2] == first
    assert len({job.settings()["optimizer.lr"] for job in jobs}) == 3
    best = max(jobs, key=lambda job: job.objective or -math.inf)
    line = capfd.readouterr().out.strip().splitlines()[-1]
    assert line == f"best: python -m ssd_lightning.train {' '.join(FEW)} optimizer.lr={best.settings()['optimizer.lr']}"


@pytest.mark.slow
def test_the_same_seed_searches_the_same_values_in_one_go_or_in_two(sweep: Sweep, tmp_path: Path) -> None:
    def values(name: str) -> list[str]:
        return [job.settings()["optimizer.lr"] for _, job in read_jobs(tmp_path / "outputs" / "toy_tiny" / name)]

    for name, trials, seed in (("whole", 2, 0), ("parts", 1, 0), ("parts", 2, 0), ("other", 1, 1)):
        asked = (f"sweep.name={name}", f"sweep.n_trials={trials}", f"sweep.seed={seed}")
        assert sweep("sweep=random", *FEW, RATES, *asked) == 0
    assert values("whole") == values("parts")
    assert values("whole")[:1] != values("other")


def test_a_trial_that_was_begun_is_ended_first(sweep: Sweep, tmp_path: Path) -> None:
    directory = tmp_path / "outputs" / "toy_tiny" / "search"
    directory.mkdir(parents=True)
    study = open_study(directory)
    _, space = read_space([RATES])
    begun = study.ask(fixed_distributions=space)  # by a call that was killed
    study.ask()  # which was killed before it had chosen
    assert sweep("sweep=tpe", *FEW, RATES, "sweep.name=search", "sweep.n_trials=2") == 0
    jobs = [job for _, job in read_jobs(directory)]
    assert [job.number for job in jobs] == [0, 2]
    assert float(jobs[0].settings()["optimizer.lr"]) == begun.params["optimizer.lr"]
    assert [trial.state.name for trial in open_study(directory).trials] == ["COMPLETE", "FAIL", "COMPLETE"]


def test_what_others_have_left_behind_is_pruned(
    sweep_of_processes: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_EPOCH_S", "0.15")
    directory = tmp_path / "outputs" / "toy_tiny" / "search"
    directory.mkdir(parents=True)
    study = open_study(directory)
    of_rate = {"params": {"optimizer.lr": 0.003}, "distributions": read_space([RATES])[1]}
    values = dict.fromkeys(range(40), 2.0)  # so good that nothing comes near
    for _ in range(5):
        study.add_trial(optuna.trial.create_trial(**of_rate, value=2.0, intermediate_values=values))
    overrides = ("sweep=tpe", "experiment=toy_tiny", "trainer.max_epochs=40", RATES, "sweep.name=search")
    assert sweep_of_processes(*overrides, "sweep.n_trials=6") == 0
    ((path, job),) = read_jobs(directory)
    assert (job.number, job.status, job.objective) == (5, PRUNED, None)
    assert 1 <= len((path / "checkpoints/epochs.txt").read_text().split()) < 40
    assert open_study(directory).trials[5].state.name == "PRUNED"
    assert "job 5 pruned" in capfd.readouterr().out


def test_failed_trials_are_reported_and_made_up_for(sweep: Sweep, tmp_path: Path) -> None:
    overrides = ("sweep=random", *FEW, "optimizer.lr=choice(13)", "sweep.name=search", "sweep.n_trials=1")
    directory = tmp_path / "outputs" / "toy_tiny" / "search"
    for calls in (1, 2):
        assert sweep(*overrides) == 1
        assert [job.status for _, job in read_jobs(directory)] == [FAILED] * calls
        assert [trial.state.name for trial in open_study(directory).trials] == ["FAIL"] * calls


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "nothing to search"),
        ([RATES, "sweep.batch_size=0"], "sweep.batch_size is 0"),
        ([RATES, "sweep.n_trials=abc"], "sweep.n_trials is 'abc'"),
        ([RATES, "sweep.seed=-1"], "sweep.seed is -1"),
    ],
)
def test_a_search_that_would_never_end_or_cannot_start_is_refused(
    overrides: list[str], said: str, sweep: Sweep, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep("sweep=random", *overrides, *FEW) == 2
    assert f"error: {said}" in capfd.readouterr().err


def test_pruning_is_off_where_there_is_none(tmp_path: Path) -> None:
    assert find_pruning(None, tmp_path, 0, tmp_path) is None
    assert find_pruning({"pruner": None}, tmp_path, 0, tmp_path) is None
    assert find_pruning({"pruner": {"_target_": "optuna.pruners.MedianPruner"}}, tmp_path, 0, tmp_path) is None
