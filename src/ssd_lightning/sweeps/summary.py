"""Results of a sweep, from the records of its jobs."""

import csv
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from ssd_lightning.sweeps.records import FINISHED, REPEATS, JobRecord
from ssd_lightning.visualization.sweep_plots import Panel
from ssd_lightning.visualization.text_table import TextTable

Jobs = Sequence[tuple[Path, JobRecord]]
"""Jobs with their directories, sorted by number."""


def write_csv(path: Path, jobs: Jobs, swept: Sequence[str], objective: str) -> None:
    """Write one row per job.

    Args:
        path: path of the file.
        jobs: jobs of the sweep.
        swept: keys with several values. Each becomes a column.
        objective: name of the objective. It and all other scores that are not per class become columns.
    """
    names = sorted({name for _, job in jobs for name in job.scores if is_summary(name)} - {objective})
    header = ["job", *swept, objective, *names, "seconds", "status", "reason", "directory"]
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(header)
        for directory, job in jobs:
            settings = job.settings()
            scores = [job.scores.get(name) for name in (objective, *names)]
            place = directory.relative_to(path.parent).as_posix()
            values = [settings.get(key, "") for key in swept]
            rows.writerow([job.number, *values, *scores, job.seconds, job.status, job.reason, place])


def is_summary(name: str) -> bool:
    """Whether a logged name is a score of a whole split."""
    return name.startswith(("val/", "test/")) and name.count("/") == 1


def by_settings(jobs: Jobs, swept: Sequence[str]) -> dict[tuple[str, ...], list[JobRecord]]:
    """Group finished jobs that differ only in the seed or the fold.

    Args:
        jobs: jobs of the sweep.
        swept: keys with several values.

    Returns:
        Values of the swept keys without the seed -> jobs, in the order of the jobs.
    """
    keys = [key for key in swept if key not in REPEATS]
    groups: dict[tuple[str, ...], list[JobRecord]] = {}
    for _, job in jobs:
        if job.status == FINISHED:
            groups.setdefault(tuple(job.settings().get(key, "") for key in keys), []).append(job)
    return groups


def best_settings(jobs: Jobs, swept: Sequence[str]) -> list[JobRecord]:
    """Return the jobs of the settings with the highest mean objective. Empty if no job finished."""
    groups = by_settings(jobs, swept)
    return max(groups.values(), key=lambda group: fmean(objectives(group)), default=[])


def count_best(jobs: Jobs, swept: Sequence[str]) -> int:
    """Count the settings that have the highest mean objective."""
    means = [fmean(objectives(group)) for group in by_settings(jobs, swept).values()]
    return means.count(max(means)) if means else 0


def best_command(jobs: Jobs, swept: Sequence[str]) -> str | None:
    """Return the command line of the best settings, without seeds and folds. None if no job finished."""
    best = best_settings(jobs, swept)
    if not best:
        return None
    dropped = {key for key in swept if key in REPEATS}
    dropped |= {"data.num_folds"} if "data.fold" in swept else set()
    keys = {text: text.lstrip("+").partition("=")[0] for text in best[0].overrides}
    overrides = [text for text, key in keys.items() if key not in dropped and key.partition(".")[0] != "sweep"]
    return shlex.join(["python", "-m", "ssd_lightning.train", *overrides])


def objectives(group: Sequence[JobRecord]) -> list[float]:
    """Return the objectives of finished jobs."""
    return [job.objective for job in group if job.objective is not None]


def result_table(jobs: Jobs, swept: Sequence[str], objective: str) -> TextTable:
    """Tabulate a sweep, best first. Jobs that differ only in the seed share a row. Unfinished jobs come last."""
    keys = [key for key in swept if key not in REPEATS]
    repeats = [key for key in swept if key in REPEATS]
    groups = sorted(by_settings(jobs, swept).items(), key=lambda item: fmean(objectives(item[1])), reverse=True)
    rows = [
        (_numbers(group), *map(short, values), spread(objectives(group)), _seconds(group), FINISHED)
        for values, group in groups
    ]
    for _, job in jobs:
        if job.status != FINISHED:
            settings = job.settings()
            status = ", ".join([job.status, *(f"{key}={settings.get(key, '')}" for key in repeats)])
            last = job.scores.get(objective)
            shown = "" if last is None else f"({last:.4f})"
            values = tuple(short(settings.get(key, "")) for key in keys)
            rows.append((str(job.number), *values, shown, _seconds([job]), status))
    score = f"{objective}\nmean +- sd" if repeats else objective
    return TextTable(("jobs" if repeats else "job", *keys, score, "seconds", "status"), tuple(rows))


def seed_table(group: Sequence[JobRecord], objective: str) -> TextTable:
    """Tabulate every score of runs that differ only in the seed or the fold, the objective first."""
    seeds = [
        ", ".join(f"{name} {job.settings()[key]}" for key, name in REPEATS.items() if key in job.settings())
        for job in group
    ]
    others = sorted(name for name in group[0].scores if is_summary(name) and name != objective)
    names = [name for name in (objective, *others) if all(job.scores.get(name) is not None for job in group)]
    values = {name: [float(job.scores[name] or 0) for job in group] for name in names}
    rows = tuple((name, spread(numbers), *(f"{number:.4f}" for number in numbers)) for name, numbers in values.items())
    return TextTable(("score", "mean +- sd", *seeds), rows)


def spread(values: Sequence[float]) -> str:
    """Format mean and standard deviation (n - 1 in the denominator), or a single value."""
    return f"{fmean(values):.4f} +- {stdev(values):.4f}" if len(values) > 1 else f"{values[0]:.4f}"


def panels(jobs: Jobs, swept: Sequence[str]) -> list[Panel]:
    """Return plots of the objective against each parameter, or against the seed if nothing else varies."""
    finished = [job for _, job in jobs if job.status == FINISHED]
    keys = [key for key in swept if key not in REPEATS] or list(swept)
    scores = tuple(objectives(finished))
    return [Panel(key, tuple(job.settings().get(key, "") for job in finished), scores) for key in keys if scores]


def short(value: str) -> str:
    """Shorten a number for a table. The file has all digits."""
    try:
        return f"{float(value):.4g}" if len(value) > 8 else value
    except ValueError:
        return value


def _numbers(group: Sequence[JobRecord]) -> str:
    return ", ".join(str(job.number) for job in group)


def _seconds(group: Sequence[JobRecord]) -> str:
    return f"{sum(job.seconds for job in group):.0f}"
