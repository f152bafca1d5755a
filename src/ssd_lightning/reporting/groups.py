"""Groups of runs that differ only in the seed: means, spreads and differences of their scores."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ssd_lightning.data.fingerprint import differences as fingerprint_differences
from ssd_lightning.digest import config_digest, differences
from ssd_lightning.reporting.run import Run, lookup
from ssd_lightning.visualization.tables import mean_and_deviation

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_NAMES = 3


@dataclass(frozen=True, eq=False)
class RunGroup:
    """Runs of one configuration with different seeds, with a short name and the names of their directories."""

    letter: str
    runs: Sequence[Run]
    name: str

    @property
    def label(self) -> str:
        """Letter and name."""
        return f"{self.letter} · {self.name}"

    def scores(self, key: str) -> list[float]:
        """Return the score of every run that has a finite one."""
        found = (run.score(key) for run in self.runs)
        return [score for score in found if score is not None and math.isfinite(score)]


@dataclass(frozen=True)
class Cell:
    """A score of a group and its difference to the first group."""

    text: str
    """Mean, with +- standard deviation for several runs; a dash if there is none."""
    difference: str
    """Difference to the first group; empty if there is none."""
    is_sure: bool
    """Whether the difference exceeds twice its standard error; True if there are no spreads."""
    is_best: bool


def group_runs(runs: Sequence[Run]) -> list[RunGroup]:
    """Group runs whose configurations differ only in the seed, in order of first appearance."""
    groups: dict[str, list[Run]] = {}
    for index, run in enumerate(runs):
        key = config_digest(without_seed(run.config)) if run.config else f"run {index}"
        groups.setdefault(key, []).append(run)
    named = zip(groups.values(), _joined_names(runs, groups.values()), strict=True)
    return [RunGroup(letter_of(index), members, name) for index, (members, name) in enumerate(named)]


def without_seed(settings: Any) -> Any:
    """Remove the seed from a configuration, its copies and all other seeds, which cannot be told from copies."""
    if isinstance(settings, Mapping):
        return {key: without_seed(item) for key, item in settings.items() if key != "seed"}
    return list(map(without_seed, settings)) if isinstance(settings, (list, tuple)) else settings


def config_differences(first: RunGroup, other: RunGroup) -> list[str]:
    """List `key: value -> value` for the different settings of two groups."""
    one, two = first.runs[0].config, other.runs[0].config
    return differences(without_seed(one), without_seed(two)) if one and two else []


def short_names(directories: Sequence[Path]) -> list[str]:
    """Name directories by as many trailing parts as needed to distinguish them."""
    parts = [path.resolve().parts for path in directories]
    names: list[str] = []
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def letter_of(index: int) -> str:
    """Count A, B, ..., Z, A1, B1, ..."""
    return LETTERS[index % len(LETTERS)] + (str(index // len(LETTERS)) if index >= len(LETTERS) else "")


def different_data(runs: Sequence[Run]) -> str:
    """Describe which runs were validated on different data; empty if all used the same."""
    sets = runs_by_data(runs)
    if len(sets) < 2:
        return ""
    said = "These runs were validated on different images or classes, so their scores cannot be compared"
    return f"{said}: {' against '.join(_joined_names(runs, sets))}."


def runs_by_data(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs that were validated on the same images and classes, in order of first appearance.

    Missing records count as equal. A run without a fingerprint of its images is compared by their number.
    """
    sets: list[list[Run]] = []
    for run in runs:
        for alike in sets:
            if all(_have_same_data(run, other) for other in alike):
                alike.append(run)
                break
        else:
            sets.append([run])
    return sets


def score_cells(groups: Sequence[RunGroup], key: str, *, are_compared: bool = True) -> list[Cell]:
    """Compare a score of each group with the first; only format it if the data differ."""
    first, *_ = all_scores = [group.scores(key) for group in groups]
    best = max((fmean(scores) for scores in all_scores if scores), default=math.nan)
    cells = []
    for place, scores in enumerate(all_scores):
        text = mean_and_deviation(scores, digits=3, sign="±") if scores else "–"
        difference, is_sure, is_best = "", True, False
        if are_compared and scores:
            is_best = len(groups) > 1 and fmean(scores) == best
            if place > 0 and first:
                gain = fmean(scores) - fmean(first)
                error = math.hypot(_standard_error(scores), _standard_error(first))
                difference, is_sure = f"{gain:+.3f}".replace("-", "−"), error == 0 or abs(gain) > 2 * error
        cells.append(Cell(text, difference, is_sure, is_best))
    return cells


def _have_same_data(one: Run, two: Run) -> bool:
    if one.class_names and two.class_names and one.class_names != two.class_names:
        return False
    prints = [lookup(run.record, "data", "val", kind=Mapping) for run in (one, two)]
    if all(prints):
        return not fingerprint_differences(*prints)
    counts = [run.images().get("val") for run in (one, two)]
    return None in counts or counts[0] == counts[1]


def _standard_error(scores: Sequence[float]) -> float:
    return stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0


def _joined_names(runs: Sequence[Run], groups: Iterable[Sequence[Run]]) -> Iterator[str]:
    """Yield the names of the runs of each group in one text."""
    names = dict(zip(runs, short_names([run.directory for run in runs]), strict=True))
    for group in groups:
        first, last = names[group[0]], names[group[-1]]
        few = ", ".join(names[run] for run in group)
        yield few if len(group) <= MOST_NAMES else f"{first} … {last} ({len(group)} runs)"
