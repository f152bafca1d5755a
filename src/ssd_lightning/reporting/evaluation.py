"""Page content for one evaluation: scores, classes, curves, confusions, errors, sizes, calibration, images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssd_lightning.analysis.calibration import CalibrationCurve, calibration
from ssd_lightning.analysis.error_split import ErrorShare, ErrorType, error_split
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.matching import ImageScores, confusion_matrix, image_scores
from ssd_lightning.analysis.object_sizes import ap_by_size, recall_by_size
from ssd_lightning.analysis.pr_curves import PRCurve, pr_curves
from ssd_lightning.reporting.charts import Chart, bars_chart, column_chart, line_chart
from ssd_lightning.reporting.images import show_images
from ssd_lightning.visualization.bars import bar_figure
from ssd_lightning.visualization.charts import Line, draw_lines, new_figure
from ssd_lightning.visualization.confusion_plot import confusion_figure
from ssd_lightning.visualization.fonts import describe_numbers, numbered_names
from ssd_lightning.visualization.svg import to_svg

SCORE_THRESHOLD = 0.4
"""Lowest score of a shown detection, as in `predict`."""
CALIBRATED_FROM = 0.1
"""Lower scores are skipped: SSD's many low scores would dominate the calibration error."""
NUM_BEST, NUM_WORST = 4, 8
SMALL_PX = (220, 170)
MOST_CLASSES_A_COLUMN = 30
MOST_CONFUSIONS = 10
ERROR_MEANINGS: dict[ErrorType, str] = {
    "class": "correct place, wrong class",
    "localisation": "correct class, inaccurate box (IoU .1 to .5)",
    "both": "wrong class, inaccurate box",
    "duplicate": "another detection of an object that was already found",
    "background": "no object at this place",
    "missed": "an object without any detection near it",
}


def evaluation_part(record: EvaluationRecord) -> dict[str, Any]:
    """Compute the page content of an evaluation, as `parts.html.j2` shows it; any part of the record may be empty."""
    names, objects, num_images = record.class_names, record.objects, len(record.image_ids)
    curves, strict_curves = pr_curves(record), pr_curves(record, 0.75)
    matrix = confusion_matrix(record, score_threshold=SCORE_THRESHOLD)
    errors = error_split(record).errors
    images = image_scores(record, score_threshold=SCORE_THRESHOLD)
    curve = calibration(record, score_threshold=CALIBRATED_FROM)
    num_difficult = int(objects.difficult.sum())
    difficult = f" ({num_difficult:,} of them difficult, which are not counted)" if num_difficult else ""
    best_shown, worst_shown = (
        show_images(record, images, indices, score_threshold=SCORE_THRESHOLD) for indices in best_and_worst(images)
    )
    return {
        "split": record.split,
        "num_images": num_images,
        "counts": f"{num_images:,} images, {len(objects.labels):,} objects{difficult}, "
        f"{len(record.detections.labels):,} detections",
        "class_charts": class_charts(curves),
        "curves": curves,
        "pr_charts": pr_charts(curves, strict_curves),
        "confusion": confusion_chart(matrix, names),
        "confusions": confusions(matrix, names),
        "errors": error_chart(errors),
        "error_rows": [(kind, ERROR_MEANINGS[kind], share.count) for kind, share in errors.items()],
        "sizes": size_charts(record),
        "calibration": calibration_charts(record.split, curve),
        "calibration_error": number(curve.error),
        # Classes that images show by number, since no font has their letters.
        "numbered": describe_numbers(numbered_names(names)),
        "best": best_shown,
        "worst": worst_shown,
    }


def best_and_worst(images: ImageScores) -> tuple[list[int], list[int]]:
    """Choose the images to show: the best, with at least a hit, and the worst, with at least an error."""
    order = images.best_first.tolist()
    num_best = min(NUM_BEST, len(order) // 3)
    best = [index for index in order[:num_best] if images.hits[index]]
    return best, [index for index in order[num_best:][::-1] if images.scores[index] < 1][:NUM_WORST]


def number(value: float | None) -> str:
    """Format a score with three digits, or a dash if there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def class_charts(curves: Sequence[PRCurve]) -> list[Chart]:
    """Draw the AP of every class as bars, best first, in as many columns as needed."""
    ranked = sorted(curves, key=lambda curve: (math.isnan(curve.ap), -curve.ap if curve.num_objects else 0.0))
    columns = -(-len(ranked) // MOST_CLASSES_A_COLUMN)
    length = -(-len(ranked) // max(columns, 1))
    charts = []
    for start in range(0, len(ranked), max(length, 1)):
        shown = ranked[start : start + length]
        names, aps = [curve.class_name for curve in shown], [curve.ap for curve in shown]
        hints = [f"{curve.class_name}: {number(curve.ap)}, {curve.num_objects} objects" for curve in shown]
        title = "AP of each class" if columns == 1 else f"AP of classes {start + 1} to {start + len(shown)}"
        figure = bar_figure(names, [("AP", aps)], texts=[list(map(number, aps))], hints=hints, high=1.0)
        charts.append(bars_chart(title, figure, names, [("AP", aps)]))
    return charts


def pr_charts(curves: Sequence[PRCurve], strict_curves: Sequence[PRCurve]) -> list[Chart]:
    """Draw precision against recall, one small chart per class."""
    # One figure for all, since making axes takes longer than writing them.
    figure = new_figure(*SMALL_PX, margins_px=(30, 10, 8, 40))
    axes = figure.subplots()
    lines = [Line("IoU .5", [], []), Line("IoU .75", [], [], 1)]
    draw_lines(axes, lines, x_label="recall", x_range=(0, 1), y_range=(0, 1))
    axes.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    charts = []
    for pair in zip(curves, strict_curves, strict=True):
        for line, one in zip(axes.lines, (curve.thinned(60) for curve in pair), strict=True):
            line.set(data=(one.recall, one.precision), marker="o" if len(one.recall) == 1 else "")
        name = pair[0].class_name
        note = f"AP {number(pair[0].ap)}, at IoU .75 {number(pair[1].ap)}"
        charts.append(Chart(name, to_svg(figure, f"Precision and recall of {name}: {note}"), note=note))
    return charts


def confusion_chart(matrix: np.ndarray, class_names: Sequence[str]) -> Chart:
    """Draw the confusion matrix."""
    found, objects = int(np.trace(matrix[1:, 1:])), int(matrix[1:].sum())
    said = f"Confusion matrix: {found} of {objects} objects detected with their class"
    return Chart("Confusion matrix", to_svg(confusion_figure(matrix, class_names), said), wide=True)


def confusions(matrix: np.ndarray, class_names: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """List the most frequent confusions: (true, found, count, fraction of the true class's objects)."""
    between = matrix[1:, 1:] * ~np.eye(len(class_names), dtype=bool)
    totals = matrix[1:].sum(axis=1)
    pairs = sorted(np.argwhere(between).tolist(), key=lambda pair: -between[pair[0], pair[1]])[:MOST_CONFUSIONS]
    return [
        (class_names[row], class_names[column], int(between[row, column]), float(between[row, column] / totals[row]))
        for row, column in pairs
    ]


def error_chart(errors: dict[ErrorType, ErrorShare]) -> Chart:
    """Draw the gain in mAP without the errors of each type."""
    gains = [share.gain for share in errors.values()]
    hints = [f"{kind}: {number(share.gain)}, {share.count} errors" for kind, share in errors.items()]
    names, series, high = list(errors), [("mAP", gains)], max([0.05, *filter(math.isfinite, gains)])
    figure = bar_figure(names, series, texts=[list(map(number, gains))], hints=hints, high=high)
    return bars_chart("Gain in mAP without the errors of a type", figure, names, series)


def size_charts(record: EvaluationRecord) -> list[Chart]:
    """Draw AP in COCO's size ranges, and recall by quantiles of the actual sizes."""
    sizes, bins = ap_by_size(record), recall_by_size(record, score_threshold=SCORE_THRESHOLD)
    charts = [
        column_chart(
            "AP by size of the object",
            [f"{size.name} ({size.num_objects})" for size in sizes],
            [("AP at IoU .5", [size.ap_50 for size in sizes]), ("AP at IoU .5 to .95", [size.ap for size in sizes])],
            hints=[[number(size.ap_50) for size in sizes], [number(size.ap) for size in sizes]],
            high=1.0,
            note="COCO's ranges: sides up to 32, up to 96 and above 96 px of the original image. In brackets: the "
            "number of objects.",
        )
    ]
    if bins:
        charts.append(
            column_chart(
                "Share of objects found, by size",
                [f"{one.least_side_px:.0f}–{one.largest_side_px:.0f}" for one in bins],
                [("found", [one.recall for one in bins])],
                hints=[[f"{one.num_found} of {one.num_objects} found" for one in bins]],
                x_label="side in px of the original image",
                high=1.0,
                note=f"At IoU .5, scores of at least {SCORE_THRESHOLD:g}. All columns have the same number of objects.",
            )
        )
    return charts


def calibration_charts(split: str, curve: CalibrationCurve) -> list[Chart]:
    """Draw precision against score, and the number of detections per score."""
    filled, edges = curve.counts > 0, curve.edges[:-1]
    shown = edges >= CALIBRATED_FROM - 1e-9
    counts = curve.counts[shown].tolist()
    return [
        line_chart(
            "Share of correct detections at each score",
            [Line("detections", curve.mean_scores[filled], curve.precisions[filled], with_points=True)],
            x_label="score", where=f" ({split})", x_range=(0, 1), y_range=(0, 1), diagonal=True,
            note="On the dotted line, a score is the share of correct detections. Below it, scores are too high.",
        ),
        column_chart(
            "Detections at each score",
            [f"{edge:.1f}" for edge in edges[shown]],
            [("detections", counts)],
            hints=[[f"{count:,} detections" for count in counts]],
            x_label="score, from",
            note=f"Scores below {CALIBRATED_FROM:g} are skipped; there are very many.",
        ),
    ]  # fmt: skip
