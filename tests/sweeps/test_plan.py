import shlex
import sys

import pytest

from ssd_lightning.command_line import CommandLine
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.sweeps.plan import plan_sweep, what_is_swept


def planned(line: str) -> list[str]:
    return [*plan_sweep(CommandLine(tuple(shlex.split(line)))).arguments]


@pytest.mark.parametrize("line", ["", "backbone=tiny seed=3", "seeds=null optimizer.lr=1", "sweep=grid sweep.name=x"])
def test_a_line_that_is_no_sweep_stays(line: str) -> None:
    assert planned(line) == shlex.split(line)


@pytest.mark.parametrize(
    ("line", "sweep"),
    [  # seeds count from the first one, which a recipe may give
        ("seeds=3 seed=7 data=toy", "--multirun data=toy sweep.name=x seed=7,8,9"),
        ("experiment=toy_tiny seeds=2", "--multirun experiment=toy_tiny sweep.name=x seed=0,1"),
        ("--config-path p=q seeds=1 seed=4", "--config-path p=q --multirun sweep.name=x seed=4"),
        ("--multirun seeds=2 optimizer.lr=0.1,0.2", "--multirun optimizer.lr=0.1,0.2 sweep.name=x seed=0,1"),
        ("sweep=tpe a=1,2", "--multirun sweep=tpe a=1,2 sweep.name=x"),
        ("sweep=tpe -m a=1,2", "-m sweep=tpe a=1,2 sweep.name=x"),
        ("a=1,2 -m", "-m a=1,2 sweep.name=x"),
    ],
)
def test_seeds_and_searches_are_sweeps_and_flags_come_first(line: str, sweep: str) -> None:
    assert planned(f"{line} sweep.name=x") == sweep.split()


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("seeds=0", "seeds=0: the number of seeds"),
        ("seeds=many", "seeds=many: the number of seeds"),
        ("seeds=3 seed=0,1", "seed=0,1: seed= must be the first"),
        ("seeds=3 sweep=tpe", "search first"),
        ("--config-dir=here seeds=3", "set the first seed too, seed=0"),
    ],
)
def test_seeds_that_make_no_sense(line: str, answer: str) -> None:
    with pytest.raises(ConfigurationError, match=answer):
        planned(line)


@pytest.mark.parametrize("sweep", ["-m a=1,2", "seeds=2", "sweep=tpe a=1,2"])
def test_what_only_one_run_can_have_is_refused(sweep: str) -> None:
    with pytest.raises(ConfigurationError, match=r"resume=outputs/a continues one run, .* init_from=outputs/a starts"):
        planned(f"{sweep} resume=outputs/a")
    with pytest.raises(ConfigurationError, match=r"that of a sweep is hydra\.sweep\.dir="):
        planned(f"{sweep} hydra.run.dir=here")
    assert "resume=auto" in planned(f"{sweep} resume=auto")


def test_a_sweep_is_named_after_what_it_is() -> None:
    def name(line: str) -> str:
        (word,) = [word for word in planned(line) if word.startswith("sweep.name=")]
        return word

    assert name("-m a=1,2") == name("--multirun a=1,2")
    assert name("-m a=1,2") == name("-m a=1,2 hydra/launcher=basic hydra.sweep.dir=x")
    assert name("sweep=tpe a=1,2 sweep.n_trials=5") == name("sweep=tpe a=1,2 sweep.n_trials=50 sweep.batch_size=2")
    assert len({name(f"-m {arguments}") for arguments in ("a=1,2", "a=2,1", "a=1,3", "b=1,2", "a=1,2 c=3")}) == 5
    assert name("-m a=1,2 sweep.name=mine") == "sweep.name=mine"


def test_what_is_swept() -> None:
    line = "a=1,2 b=[1,2] c='1,2' +d=choice(x,y) e=interval(0,1) f=tag(log,interval(1,2)) ~g h/i=x,y seed=range(0,3)"
    assert what_is_swept(line.split()) == ["a", "d", "e", "f", "h/i", "seed"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("optuna", "hydra_plugins.hydra_joblib_launcher"):
        monkeypatch.setitem(sys.modules, module, None)
    for word in ("sweep=tpe", "hydra/launcher=joblib"):
        with pytest.raises(ConfigurationError, match=rf"{word} needs .* pip install 'ssd-lightning\[sweep\]'"):
            planned(f"{word} a=1,2")
