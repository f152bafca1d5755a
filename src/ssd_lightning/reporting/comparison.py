"""The page that compares runs: scores with their spread over seeds, curves, classes, errors, settings."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import quote

import numpy as np

from ssd_lightning.analysis.error_split import ERROR_TYPES, error_split
from ssd_lightning.errors import DataError
from ssd_lightning.reporting.charts import SHARED_LOSSES, Chart, bars_chart, curve_line, slot_class, step_chart
from ssd_lightning.reporting.evaluation import MOST_CLASSES_A_COLUMN, number
from ssd_lightning.reporting.groups import RunGroup, config_differences, different_data, group_runs, score_cells
from ssd_lightning.reporting.page import REPORT, render, runs_mark, write_page
from ssd_lightning.reporting.run import SPLITS, read_run
from ssd_lightning.reporting.summary import SCORES, duration
from ssd_lightning.visualization.bars import bar_figure, dot_figure

COMPARISON = "comparison.html"


def write_comparison(directories: Sequence[Path], output: Path) -> Path:
    """Write a page that compares the runs of directories, which must all differ, with the first of them."""
    for index, path in enumerate(directories):
        if path.resolve() in {other.resolve() for other in directories[:index]}:
            raise DataError(f"{path} is given twice")
    runs = list(map(read_run, directories))
    groups, warning = group_runs(runs), different_data(runs)
    errors, notes = error_charts(groups)
    there: dict[str, Any] = {
        "scores": score_tables(groups, are_compared=not warning),
        "curves": curve_charts(groups),
        "classes": class_charts(groups),
        "errors": errors,
        "settings": [(group.label, config_differences(groups[0], group)) for group in groups[1:]],
    }
    configurations = "one configuration" if len(groups) == 1 else f"{len(groups)} configurations"
    html = render(
        "comparison.html.j2",
        runs_mark=runs_mark(run.directory for run in runs),
        warning=warning,
        kicker="Comparison",
        title=f"{len(runs)} runs" + (f" of {configurations}" if len(groups) < len(runs) else ""),
        subtitle=", ".join(group.name for group in groups),
        contents={"runs": "Runs", **{name: name.capitalize() for name, content in there.items() if content}},
        rows=[group_row(group, slot, output.parent) for slot, group in enumerate(groups)],
        first=groups[0],
        has_seeds=any(len(group.runs) > 1 for group in groups),
        notes=notes,
        **there,
    )
    return write_page(html, output)


def group_row(group: RunGroup, slot: int, folder: Path) -> dict[str, Any]:
    """Describe a group for the table of runs; links to the pages of its runs are relative to the folder."""
    links = []
    for run in group.runs:
        page = run.directory / REPORT
        links.append((run.directory.name, quote(os.path.relpath(page, folder)) if page.is_file() else ""))
    epochs = dict.fromkeys(str(run.epochs_trained() or "–") for run in group.runs)
    seconds = [time for run in group.runs if (time := run.seconds()) is not None]
    unfinished = sum(run.result is None for run in group.runs)
    return {
        "slot": slot_class(slot),
        "letter": group.letter,
        "links": links,
        "seeds": ", ".join(str(run.record.get("seed", run.config.get("seed", "–"))) for run in group.runs),
        "epochs": ", ".join(epochs) + (f" ({unfinished} unfinished)" if unfinished else ""),
        "time": duration(fmean(seconds)) if seconds else "–",
    }


def score_tables(groups: Sequence[RunGroup], *, are_compared: bool = True) -> list[dict[str, Any]]:
    """Tabulate the scores of every split with scores in any run; see `score_cells`."""
    tables = []
    for split in SPLITS:
        keys = [key for key in SCORES if any(group.scores(f"{split}/{key}") for group in groups)]
        columns = [score_cells(groups, f"{split}/{key}", are_compared=are_compared) for key in keys]
        rows = [
            (slot_class(slot), group.letter, [column[slot] for column in columns]) for slot, group in enumerate(groups)
        ]
        if keys:
            tables.append({"split": split, "names": [SCORES[key] for key in keys], "rows": rows})
    return tables


def curve_charts(groups: Sequence[RunGroup]) -> list[Chart]:
    """Overlay the logged curves: a line for each run, a colour for each group."""
    objective = groups[0].runs[0].objective
    score = objective.removeprefix("val/")
    titles = {objective: f"Validation: {SCORES.get(score, score)}", "loss": "Training loss"}
    titles |= {f"val/{key}": f"Validation: {title.lower()}" for key, title in SHARED_LOSSES.items()}
    titles |= {"lr": "Learning rate", "speed/images_per_s": "Images per second"}
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
            chart = step_chart(title, lines, last_step=last, are_scores=key == objective and "map" in key)
            shown = {line.slot for line in lines}
            legend = [(slot_class(slot), groups[slot].label) for slot in sorted(shown)] if len(groups) > 1 else []
            charts.append(replace(chart, legend=legend))
    return charts


def class_charts(groups: Sequence[RunGroup]) -> list[Chart]:
    """Draw the 11-point AP of each class, side by side for all groups, for every split."""
    names = list(dict.fromkeys(name for group in groups for run in group.runs for name in run.class_names))
    charts = []
    for split, split_name in SPLITS.items():
        means = {name: [_mean(group.scores(f"{split}/ap_11point/{name}")) for group in groups] for name in names}
        shown = [name for name in names if np.isfinite(means[name]).any()]
        for start in range(0, len(shown), MOST_CLASSES_A_COLUMN):
            part = shown[start : start + MOST_CLASSES_A_COLUMN]
            series = [(group.label, [means[name][slot] for name in part]) for slot, group in enumerate(groups)]
            title = f"{split_name.capitalize()}: AP of each class, 11 points"
            charts.append(bars_chart(title, dot_figure(part, series), part, series))
    return charts


def error_charts(groups: Sequence[RunGroup]) -> tuple[list[Chart], list[str]]:
    """Draw the gain in mAP from fixing each type of error: a chart per split, and sentences that name skipped runs."""
    charts, notes = [], []
    for split, name in SPLITS.items():
        rows = []
        for group in groups:
            splits = [error_split(run.evaluations[split]) for run in group.runs if split in run.evaluations]
            splits = [one for one in splits if np.isfinite(one.map)]
            rows.append((group.label, [_mean([one.errors[kind].gain for one in splits]) for kind in ERROR_TYPES]))
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


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else np.nan
