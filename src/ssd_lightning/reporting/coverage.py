"""Charts of how well the priors of a run's network cover the evaluated objects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssd_lightning.analysis.coverage import best_priors, coverage_summary
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.inference.detector import Detector
from ssd_lightning.reporting.charts import Chart, bars_chart, column_figure
from ssd_lightning.reporting.run import SPLITS
from ssd_lightning.visualization.coverage_plot import draw_ious, draw_shares
from ssd_lightning.visualization.svg import to_svg

IOU_TITLE = "Best IoU of each object with a prior"


def coverage_part(record: EvaluationRecord, checkpoint: Path) -> dict[str, Any]:
    """Measure how the priors of a checkpoint cover the objects of an evaluation, as `run.html.j2` shows it.

    Objects without an area are skipped. Raises `WeightsError` if the checkpoint cannot be read.
    """
    detector = Detector.load(checkpoint)
    net = detector.network
    placements = [
        detector.resize.placement((height, width), net.image_size) for height, width in record.sizes_px.tolist()
    ]
    shares = np.array(placements).reshape(-1, 2)[record.objects.image_index.numpy()]
    boxes = record.objects.boxes.double().numpy() * np.tile(shares, 2)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    best = best_priors(boxes, net.levels, net.image_size, net.clip_priors)
    summary = coverage_summary(boxes, best.iou, net.image_size)
    share = "–" if summary["share"] is None else f"{summary['share']:.1%}"
    levels = [
        {
            "grid": " × ".join(map(str, level.grid)),
            "sides": ", ".join(f"{width:.0f} × {height:.0f}" for width, height in level.sizes()),
            "ratios": ", ".join(f"{ratio:g}" for ratio in level.aspect_ratios),
            "objects": int((best.level == index).sum()),
        }
        for index, level in enumerate(net.levels)
    ]
    figure = column_figure()
    draw_ious(figure.subplots(), [("objects", best.iou)])
    return {
        "sentence": f"{summary['reached']:,} of {summary['objects']:,} objects of the {SPLITS[record.split]} images, "
        f"{share}, have a prior of IoU {summary['threshold']:g} or more; the network has {len(net.priors_cxcywh):,} "
        f"priors on {len(net.levels)} levels",
        "charts": [
            Chart(IOU_TITLE, to_svg(figure, f"{IOU_TITLE}: {len(boxes)} objects")),
            _share_chart("Objects with a prior, by size", summary["by_size"], "size (root of the area) in the input"),
            _share_chart("Objects with a prior, by shape", summary["by_ratio"], "width : height"),
        ],
        "levels": levels,
    }


def _share_chart(title: str, shares: Mapping[str, Mapping[str, Any]], x_label: str) -> Chart:
    figure = column_figure()
    draw_shares(figure.subplots(), [("objects with a prior", shares)], x_label=x_label)
    filled = {name: entry["share"] for name, entry in shares.items() if entry["objects"]}
    return bars_chart(title, figure, list(filled), [("objects with a prior", list(filled.values()))])
