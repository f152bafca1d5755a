"""Results of a sweep, from the records of its jobs."""

import csv
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

from ssd_lightning.sweeps.records import FINISHED, REPEATS, JobRecord
from ssd_lightning.visualization.tables import TextTable, mean_and_deviation

Jobs = Sequence[tuple[Path, JobRecord]]
"""Jobs with their directories, sorted by number."""

spread = partial(mean_and_deviation, digits=4, sign="+-")


def write_csv(path: Path, jobs: Jobs, swept: Sequence[str], objective: str) -> None:
    """Write one row per job, with a column for each swept key, the objective, and each score that is not per class."""
    names = sorted({name for _, job in jobs for name in job.scores if is_summary(name)} - {objective})
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["job", *swept, objective, *names, "seconds", "status", "reason", "directory"])
        for directory, job in jobs:
            settings = job.settings()
            values = [settings.get(key, "") for key in swept]
            scores = [job.scores.get(name) for name in (objective, *names)]
            place = directory.relative_to(path.parent).as_posix()
            rows.writerow([job.number, *values, *scores, job.seconds, job.status, job.reason, place])


def is_summary(name: str) -> bool:
    """Whether a logged name is a score of a whole split."""
    return name.startswith(("val/", "test/")) and name.count("/") == 1


def by_settings(jobs: Jobs, swept: Sequence[str]) -> dict[tuple[str, ...], list[JobRecord]]:
    """Group finished jobs that differ only in the seed or the fold, by the values of the other swept keys."""
    keys = [key for key in swept if key not in REPEATS]
    groups: dict[tuple[str, ...], list[JobRecord]] = {}
    for _, job in jobs:
        if job.status == FINISHED:
            groups.setdefault(tuple(job.settings().get(key, "") for key in keys), []).append(job)
    return groups


def best_commands(jobs: Jobs, swept: Sequence[str]) -> list[str]:
    """Return the command lines, without seeds and folds, of the settings with the highest mean objective.

    They are several if there is a tie, and none if no job finished.
    """
    groups = list(by_settings(jobs, swept).values())
    means = [fmean(objectives(group)) for group in groups]
    dropped = {key for key in swept if key in REPEATS} | ({"data.num_folds"} if "data.fold" in swept else set())
    commands = []
    for group, mean in zip(groups, means, strict=True):
        if mean == max(means):
            keys = {text: text.lstrip("+").partition("=")[0] for text in group[0].overrides}
            kept = [text for text, key in keys.items() if key not in dropped and key.partition(".")[0] != "sweep"]
            commands.append(shlex.join(["python", "-m", "ssd_lightning.train", *kept]))
    return commands


def objectives(group: Sequence[JobRecord]) -> list[float]:
    """Return the objectives of finished jobs."""
    return [job.objective for job in group if job.objective is not None]


def result_table(jobs: Jobs, swept: Sequence[str], objective: str) -> TextTable:
    """Tabulate a sweep, best first. Jobs that differ only in the seed share a row. Unfinished jobs come last."""
    keys = [key for key in swept if key not in REPEATS]
    repeats = [key for key in swept if key in REPEATS]
    groups = sorted(by_settings(jobs, swept).items(), key=lambda item: fmean(objectives(item[1])), reverse=True)
    rows = []
    for values, group in groups:
        numbers, seconds = ", ".join(str(job.number) for job in group), sum(job.seconds for job in group)
        rows.append((numbers, *map(short, values), spread(objectives(group)), f"{seconds:.0f}", FINISHED))
    for _, job in jobs:
        if job.status != FINISHED:
            settings, last = job.settings(), job.scores.get(objective)
            status = ", ".join([job.status, *(f"{key}={settings.get(key, '')}" for key in repeats)])
            shown = "" if last is None else f"({last:.4f})"
            values = tuple(short(settings.get(key, "")) for key in keys)
            rows.append((str(job.number), *values, shown, f"{job.seconds:.0f}", status))
    score = f"{objective}\nmean +- sd" if repeats else objective
    return TextTable(("jobs" if repeats else "job", *keys, score, "seconds", "status"), rows)


def seed_table(group: Sequence[JobRecord], objective: str) -> TextTable:
    """Tabulate every score of runs that differ only in the seed or the fold, the objective first."""
    seeds = [
        ", ".join(f"{name} {job.settings()[key]}" for key, name in REPEATS.items() if key in job.settings())
        for job in group
    ]
    others = sorted(name for name in group[0].scores if is_summary(name) and name != objective)
    rows = []
    for name in (objective, *others):
        values = [score for job in group if (score := job.scores.get(name)) is not None]
        if len(values) == len(group):
            rows.append((name, spread(values), *(f"{value:.4f}" for value in values)))
    return TextTable(("score", "mean +- sd", *seeds), rows)


def plotted_values(finished: Sequence[JobRecord], swept: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of each parameter in finished jobs, or the seeds if nothing else varies."""
    keys = [key for key in swept if key not in REPEATS] or swept
    return {key: [job.settings().get(key, "") for job in finished] for key in keys}


def short(value: str) -> str:
    """Shorten a number for a table. The file has all digits."""
    try:
        return f"{float(value):.4g}" if len(value) > 8 else value
    except ValueError:
        return value
