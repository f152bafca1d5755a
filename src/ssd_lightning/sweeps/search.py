"""A sweeper that lets optuna choose the values, and stores all trials in the sweep's directory."""

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from ssd_lightning.checks import require_number
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.run_command import exit_at_user_errors
from ssd_lightning.sweeps.pruning import open_study
from ssd_lightning.sweeps.records import FINISHED, PRUNED, JobRecord

log = logging.getLogger(__name__)


def read_space(overrides: Sequence[str]) -> tuple[list[str], dict[str, BaseDistribution]]:
    """Read a search space from Hydra's overrides.

    Values to search are `interval(1e-4,1e-2)`, `tag(log,interval(...))`, `int(interval(2,8))`, `range(2,9)` and
    `choice(a,b)` or `a,b`. A range excludes its end, as in Python.

    Returns:
        The overrides with one value, and the distribution of each other key.

    Raises:
        ConfigurationError: there is nothing to search, or a space is empty.
    """
    fixed, space = [], {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.is_sweep_override():
            space[override.get_key_element()] = _distribution(override)
        else:
            fixed.append(str(override.input_line))
    if not space:
        raise ConfigurationError("nothing to search: give a space, e.g. 'optimizer.lr=tag(log,interval(1e-4,1e-2))'")
    return fixed, space


def _distribution(override: Override) -> BaseDistribution:
    value = override.value()
    try:
        if isinstance(value, IntervalSweep):
            log_scale = "log" in value.tags
            if isinstance(value.start, int) and isinstance(value.end, int):
                return IntDistribution(value.start, value.end, log=log_scale)
            return FloatDistribution(value.start, value.end, log=log_scale)  # type: ignore[arg-type]
        if isinstance(value, RangeSweep):
            steps = list(value.range())
            if all(isinstance(step, int) for step in steps):
                return IntDistribution(min(steps), max(steps), step=abs(int(value.step)))
            return FloatDistribution(min(steps), max(steps), step=abs(value.step))
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except ValueError as error:
        raise ConfigurationError(f"{override.input_line}: {error}") from error


class SearchSweeper(Sweeper):
    """Runs trials until `n_trials` are complete. Unfinished trials of an earlier call run first.

    Args:
        sampler: `_target_` of an `optuna.samplers` class, and its settings.
        n_trials: total number of complete or pruned trials. The next call replaces failed ones.
        batch_size: number of trials at a time, for launchers that run jobs in parallel.
        seed: seed of the search.
    """

    config: DictConfig
    launcher: Launcher

    def __init__(self, sampler: DictConfig, n_trials: int, batch_size: int, seed: int) -> None:
        self.sampler = sampler
        self.n_trials = n_trials
        self.batch_size = batch_size
        self.seed = seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the configuration and create the launcher."""
        self.config = config
        make_launcher = Plugins.instance().instantiate_launcher
        self.launcher = make_launcher(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> None:
        """Search the space given on the command line."""
        with exit_at_user_errors():
            for name, low in (("n_trials", 0), ("batch_size", 1), ("seed", 0)):
                require_number(f"sweep.{name}", getattr(self, name), low, whole=True)
            fixed, space = read_space(arguments)
        directory = Path(self.config.hydra.sweep.dir)
        directory.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, directory / "multirun.yaml")
        study = open_study(directory)
        for trials in self._batches(study, space):
            overrides = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in trials]
            returned = self.launcher.launch(overrides, initial_job_idx=trials[0].number)
            for trial, job in zip(trials, returned, strict=True):
                tell(study, trial.number, job)
        if study.get_trials(states=(TrialState.COMPLETE,)):
            best = study.best_trial
            log.info("best of %d trials: %d with %.4f", len(study.trials), best.number, best.value)

    def _batches(self, study: Study, space: dict[str, BaseDistribution]) -> Iterator[list[FrozenTrial]]:
        left_over = []
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            if trial.params.keys() == space.keys():
                left_over.append(trial)
            else:  # the call was killed while choosing values
                study.tell(trial.number, state=TrialState.FAIL)
        done = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
        # A launcher numbers its jobs consecutively.
        for _, row in groupby(enumerate(left_over), lambda item: item[1].number - item[0]):
            trials = [trial for _, trial in row]
            yield from (trials[at : at + self.batch_size] for at in range(0, len(trials), self.batch_size))
        wanted = range(self.n_trials - len(done) - len(left_over))
        for start in wanted[:: self.batch_size]:
            yield [self._ask(study, space) for _ in wanted[start : start + self.batch_size]]

    def _ask(self, study: Study, space: dict[str, BaseDistribution]) -> FrozenTrial:
        # A new sampler for each trial: otherwise a continued search would repeat its random numbers.
        number = len(study.get_trials(deepcopy=False))
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        study.sampler = instantiate(self.sampler, seed=seed, _convert_="all")
        asked = study.ask(fixed_distributions=space)
        return study.get_trials()[asked.number]


def tell(study: Study, number: int, job: JobReturn) -> None:
    """Report to optuna how a trial ended."""
    record = None
    if job.status == JobStatus.COMPLETED and job.hydra_cfg is not None:
        record = JobRecord.read(Path(job.hydra_cfg.hydra.runtime.output_dir))
    if record is not None and record.status == FINISHED:
        study.tell(number, record.objective)
    else:
        pruned = record is not None and record.status == PRUNED
        study.tell(number, state=TrialState.PRUNED if pruned else TrialState.FAIL)
