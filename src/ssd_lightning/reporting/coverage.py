"""Charts of how well the priors of a run's network cover the evaluated objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssd_lightning.analysis.coverage import best_priors, coverage_summary
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.inference.detector import Detector
from ssd_lightning.models.config import to_config
from ssd_lightning.ops.priors import as_height_width
from ssd_lightning.reporting.bars import column_chart
from ssd_lightning.reporting.charts import Chart
from ssd_lightning.reporting.run import SPLITS

BINS = 20


@dataclass(frozen=True, eq=False)
class CoveragePart:
    """Content of the page about priors."""

    sentence: str
    charts: list[Chart]
    levels: list[tuple[str, str, str, int]]
    """Grid, sides of the priors in px of the input, ratios, number of objects with their best prior there."""


def coverage_part(record: EvaluationRecord, checkpoint: Path) -> CoveragePart:
    """Measure how the priors cover the objects of an evaluation.

    Args:
        record: record of the evaluation; objects without an area are skipped.
        checkpoint: checkpoint of the network.

    Raises:
        WeightsError: the checkpoint cannot be read.
    """
    detector = Detector.load(checkpoint)
    net = detector.network
    placements = [
        detector.resize.placement((height, width), net.image_size) for height, width in record.sizes_px.tolist()
    ]
    shares = np.array(placements).reshape(-1, 2)[record.objects.image_index.numpy()]
    boxes = record.objects.boxes.double().numpy() * np.tile(shares, 2)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    best = best_priors(boxes, net.levels, net.image_size, to_config(net).get("clip_priors", False))
    summary = coverage_summary(boxes, best.iou, net.image_size)
    counts, edges = np.histogram(best.iou.clip(0, 1), bins=BINS, range=(0, 1))
    share = "–" if summary["share"] is None else f"{summary['share']:.1%}"
    return CoveragePart(
        sentence=f"{summary['reached']:,} of {summary['objects']:,} objects of the {SPLITS[record.split]} images, "
        f"{share}, have a prior of IoU {summary['threshold']:g} or more; the network has {len(net.priors_cxcywh):,} "
        f"priors on {len(net.levels)} levels",
        charts=[
            column_chart(
                "Best IoU of each object with a prior",
                [f"{edge:.2f}" for edge in edges[:-1]],
                [("objects", counts.tolist())],
                texts=[[f"{count} objects" for count in counts.tolist()]],
                x_label="IoU, from",
            ),
            _share_chart("Objects with a prior, by size", summary["by_size"], "size (root of the area) in the input"),
            _share_chart("Objects with a prior, by shape", summary["by_ratio"], "width : height"),
        ],
        levels=[
            (
                " × ".join(map(str, as_height_width(level.grid_size or 0))),
                _sides(level.sizes()),
                ", ".join(f"{ratio:g}" for ratio in level.aspect_ratios),
                int((best.level == index).sum()),
            )
            for index, level in enumerate(net.levels)
        ],
    )


def _share_chart(title: str, shares: Mapping[str, Mapping[str, Any]], x_label: str) -> Chart:
    filled = {name: entry for name, entry in shares.items() if entry["objects"]}
    return column_chart(
        title,
        [_short(name) for name in filled],
        [("objects with a prior", [entry["share"] for entry in filled.values()])],
        texts=[[f"{entry['reached']} of {entry['objects']}" for entry in filled.values()]],
        x_label=x_label,
        high=1.0,
    )


def _short(name: str) -> str:
    for long, short in (
        ("below ", "<"), (" px and more", "+"), (" px", ""), ("taller than ", "<"), ("wider than ", ">"), (" to ", "–"),
        ("about square", "square"), ("1:1.5", "2:3"), ("1.5:1", "3:2"),
    ):  # fmt: skip
        name = name.replace(long, short)
    return name


def _sides(sizes: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{width:.0f} × {height:.0f}" for width, height in sizes)
