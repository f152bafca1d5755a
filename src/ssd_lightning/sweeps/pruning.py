"""Pruning of a search's jobs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssd_lightning.sweeps.records import read_objectives

STUDY, JOURNAL = "sweep", "search.journal"


def find_pruning(sweep: Any, directory: Path, number: int, job: Path) -> Callable[[], bool] | None:
    """Return a function that decides whether to prune a job. None if the sweep does not prune.

    `sweep` are the settings `sweep.*`; the job's number is also the trial's.
    """
    if not sweep or not sweep.get("pruner") or not (directory / JOURNAL).is_file():
        return None
    from hydra.utils import instantiate

    study = open_study(directory, pruner=instantiate(sweep.pruner))
    frozen = study.get_trials(deepcopy=False)[number]
    from optuna.trial import Trial

    trial = Trial(study, frozen._trial_id)
    reported = set(frozen.intermediate_values)  # by an earlier start of this job

    def is_left_behind() -> bool:
        news = [(epoch, value) for epoch, value in read_objectives(job) if epoch not in reported]
        for epoch, value in news:
            trial.report(value, epoch)
            reported.add(epoch)
        return bool(news) and trial.should_prune()

    return is_left_behind


def open_study(directory: Path, **parts: Any) -> Any:
    """Open or create the study of a sweep; `parts` are `sampler` and `pruner` of `optuna.create_study`."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(directory / JOURNAL)))
    return optuna.create_study(study_name=STUDY, storage=storage, direction="maximize", load_if_exists=True, **parts)
