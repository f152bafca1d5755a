"""The page that compares runs: scores with their spread over seeds, curves, classes, errors, settings."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import quote

import numpy as np

from ssd_lightning.analysis.error_split import ERROR_TYPES, error_split
from ssd_lightning.errors import DataError
from ssd_lightning.reporting.charts import (
    SHARED_LOSSES,
    Chart,
    bars_chart,
    curve_line,
    from_zero,
    line_chart,
    slot_class,
)
from ssd_lightning.reporting.evaluation import MOST_CLASSES_A_COLUMN, number
from ssd_lightning.reporting.groups import (
    Cell,
    RunGroup,
    config_differences,
    different_data,
    group_runs,
    score_cells,
)
from ssd_lightning.reporting.output import runs_mark
from ssd_lightning.reporting.page import REPORT, Entry, render, write_page
from ssd_lightning.reporting.run import SPLITS, Run, read_run
from ssd_lightning.reporting.summary import SCORES, duration
from ssd_lightning.visualization.charts import bar_figure, dot_figure

COMPARISON = "comparison.html"


@dataclass(frozen=True)
class GroupRow:
    """A row of the table of runs."""

    slot: str
    letter: str
    name: str
    links: list[tuple[str, str]]
    """Name of each run and the link to its own page, relative to this page; empty if it has none."""
    seeds: str
    epochs: str
    time: str


@dataclass(frozen=True, eq=False)
class SplitScores:
    """The scores of one split: a column for each of `names`, a row of cells for each group."""

    split: str
    names: list[str]
    rows: list[tuple[str, str, list[Cell]]]
    """CSS class of the colour, letter, cells."""


def write_comparison(directories: Sequence[Path | str], output: Path | str = COMPARISON) -> Path:
    """Write a page that compares runs.

    Args:
        directories: run directories; the others are compared with the first.
        output: path of the page.

    Raises:
        DataError: a directory is given twice, is not a run or has nothing to show, a file in it is damaged, or the
            page cannot be written.
    """
    seen: set[Path] = set()
    for path in map(Path, directories):
        if path.resolve() in seen:
            raise DataError(f"{path} is given twice")
        seen.add(path.resolve())
    return write_page(comparison_page([read_run(Path(path)) for path in directories], Path(output)), Path(output))


def comparison_page(runs: Sequence[Run], path: Path) -> str:
    """Return the page as HTML; its links are relative to `path`."""
    groups, warning = group_runs(runs), different_data(runs)
    scores, curves = split_scores(groups, are_compared=not warning), curve_charts(groups)
    classes, errors, notes = class_charts(groups), *error_charts(groups)
    settings = [(group.label, config_differences(groups[0], group)) for group in groups[1:]]
    there: dict[str, Any] = {
        "scores": scores,
        "curves": curves,
        "classes": classes,
        "errors": errors,
        "settings": settings,
    }
    contents = [Entry("runs", "Runs"), *(Entry(name, name.capitalize()) for name, content in there.items() if content)]
    return render(
        "comparison.html.j2",
        runs_mark=runs_mark(run.directory for run in runs),
        warning=warning,
        kicker="Comparison",
        title=_title(len(runs), len(groups)),
        subtitle=", ".join(group.name for group in groups),
        contents=contents,
        rows=[group_row(group, slot, path.parent) for slot, group in enumerate(groups)],
        first=groups[0],
        has_seeds=any(len(group.runs) > 1 for group in groups),
        split_names=SPLITS,
        notes=notes,
        **there,
    )


def group_row(group: RunGroup, slot: int, folder: Path) -> GroupRow:
    """Describe a group; links are relative to the folder."""
    links = []
    for run in group.runs:
        page = run.directory / REPORT
        links.append((run.directory.name, quote(os.path.relpath(page, folder)) if page.is_file() else ""))
    lasts = [run.epochs_trained() for run in group.runs]
    seconds = [time for run in group.runs if (time := run.seconds()) is not None]
    unfinished = sum(run.result is None for run in group.runs)
    open_runs = f" ({unfinished} unfinished)" if unfinished else ""
    return GroupRow(
        slot=slot_class(slot),
        letter=group.letter,
        name=group.name,
        links=links,
        seeds=", ".join(str(run.record.get("seed", run.config.get("seed", "–"))) for run in group.runs),
        epochs=", ".join(dict.fromkeys(str(epochs or "–") for epochs in lasts)) + open_runs,
        time=duration(fmean(seconds)) if seconds else "–",
    )


def split_scores(groups: Sequence[RunGroup], *, are_compared: bool = True) -> list[SplitScores]:
    """Tabulate the scores of every split with scores in any run; see `score_cells`."""
    tables = []
    for split in SPLITS:
        keys = {key: label for key, label in SCORES.items() if any(group.scores(f"{split}/{key}") for group in groups)}
        columns = [score_cells(groups, f"{split}/{key}", are_compared=are_compared) for key in keys]
        rows = [
            (slot_class(slot), group.letter, [column[slot] for column in columns]) for slot, group in enumerate(groups)
        ]
        if keys:
            tables.append(SplitScores(split, list(keys.values()), rows))
    return tables


def curve_charts(groups: Sequence[RunGroup]) -> list[Chart]:
    """Overlay the logged curves: a line for each run, a colour for each group."""
    objective = groups[0].runs[0].objective
    score = objective.removeprefix("val/")
    titles = {objective: f"Validation: {SCORES.get(score, score)}", "loss": "Training loss"}
    titles |= {f"val/{key}": f"Validation: {title.lower()}" for key, title in SHARED_LOSSES.items()}
    titles |= {"lr": "Learning rate", "speed/images_per_s": "Images a second"}
    charts = []
    for key, title in titles.items():
        lines = [
            curve_line(f"{group.letter} {run.directory.name}", run.curves[key], slot)
            for slot, group in enumerate(groups)
            for run in group.runs
            if key in run.curves
        ]
        if lines:
            last = max(float(line.x[-1]) for line in lines)
            y_range = (0.0, 1.0) if key == objective and "map" in key else from_zero(lines)
            chart = line_chart(title, lines, x_label="step", x_range=(0, last), y_range=y_range)
            shown = {line.slot for line in lines}
            legend = [(slot_class(slot), groups[slot].label) for slot in sorted(shown)] if len(groups) > 1 else []
            charts.append(replace(chart, legend=legend))
    return charts


def class_charts(groups: Sequence[RunGroup]) -> list[Chart]:
    """Draw the 11-point AP of each class, side by side for all groups, for every split."""
    names = list(dict.fromkeys(name for group in groups for run in group.runs for name in run.class_names))
    charts = []
    for split, split_name in SPLITS.items():
        scores = {name: [group.scores(f"{split}/ap_11point/{name}") for group in groups] for name in names}
        means = {name: [fmean(found) if found else np.nan for found in row] for name, row in scores.items()}
        shown = [name for name in names if np.isfinite(means[name]).any()]
        for start in range(0, len(shown), MOST_CLASSES_A_COLUMN):
            part = shown[start : start + MOST_CLASSES_A_COLUMN]
            series = [(group.label, [means[name][slot] for name in part]) for slot, group in enumerate(groups)]
            title = f"{split_name.capitalize()}: AP of each class, 11 points"
            charts.append(bars_chart(title, dot_figure(part, series), part, series))
    return charts


def error_charts(groups: Sequence[RunGroup]) -> tuple[list[Chart], list[str]]:
    """Draw the gain in mAP from fixing each type of error, for all groups with evaluations.

    Returns:
        One chart per split, and sentences that name the skipped runs.
    """
    charts, notes = [], []
    for split, name in SPLITS.items():
        rows = []
        for group in groups:
            splits = [error_split(run.evaluations[split]) for run in group.runs if split in run.evaluations]
            gains = [[one.errors[kind].gain for one in splits if np.isfinite(one.map)] for kind in ERROR_TYPES]
            rows.append((group.label, [fmean(values) if values else np.nan for values in gains]))
        without = [group.letter for group, (_, gains) in zip(groups, rows, strict=True) if np.isnan(gains).all()]
        if len(without) < len(groups):
            texts = [[number(gain) for gain in gains] for _, gains in rows]
            figure = bar_figure(ERROR_TYPES, rows, texts=texts)
            charts.append(bars_chart(f"{name.capitalize()}: gain in mAP", figure, ERROR_TYPES, rows))
        if without:
            which = "No run has" if len(without) == len(groups) else f"{', '.join(without)} without"
            if split == "val" or len(without) < len(groups):
                notes.append(f"{which} an evaluation of the {name} images (evaluations/{split}.npz).")
    return charts, notes


def _title(num_runs: int, num_groups: int) -> str:
    if num_groups == num_runs:
        return f"{num_runs} runs"
    return f"{num_runs} runs of " + ("one configuration" if num_groups == 1 else f"{num_groups} configurations")
