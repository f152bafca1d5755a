import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.evaluation_records import (
    BELOW,
    EMPTY,
    LEFT,
    NEAR_LEFT,
    OFF_LEFT,
    PLANTED,
    RIGHT,
    ImageSpec,
    make_record,
    planted_record,
    random_record,
)
from ssd_lightning.analysis.error_split import ERROR_TYPES, ErrorShare, ErrorSplit, ErrorType, error_split
from ssd_lightning.metrics.average_precision import voc_average_precision

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("tide_vectors.json").read_text())["vectors"]


def tidecv_average(precision: torch.Tensor, recall: torch.Tensor) -> torch.Tensor:
    """As tidecv has it: 101 recalls, of which some differ from numpy's linspace in the last bit."""
    heights = []
    for threshold in (percent / 100 for percent in range(101)):
        reached = precision[recall >= threshold]
        heights.append(float(reached.max()) if len(reached) else 0.0)
    return torch.tensor(sum(heights) / len(heights), dtype=torch.float64)


def gains(split: ErrorSplit) -> dict[str, float]:
    return {str(name): share.gain for name, share in split.errors.items()}


def counts(split: ErrorSplit) -> dict[str, int]:
    return {str(name): share.count for name, share in split.errors.items()}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"seed {vector['case']['seed']}")
def test_it_is_tidecvs(vector: dict[str, Any]) -> None:
    record = random_record(**vector["case"])
    drawn = float(record.detections.boxes.double().sum())
    assert drawn == pytest.approx(vector["sum_of_boxes"], abs=1e-9), "the drawing is not the one the vectors are of"
    split = error_split(record, average_precision=tidecv_average)
    assert split.map == pytest.approx(vector["map"], abs=1e-12)
    assert gains(split) == pytest.approx(vector["gains"], abs=1e-12)
    assert counts(split) == vector["counts"]


def test_planted_errors_are_counted() -> None:
    assert counts(error_split(planted_record())) == dict(zip(ERROR_TYPES, [1, 1, 1, 1, 2, 3], strict=True))


@pytest.mark.parametrize("name", ERROR_TYPES)
def test_an_error_alone_gives_back_what_is_lacking(name: ErrorType) -> None:
    """Right detections beside it, which come after it, so that every false positive costs."""
    others = ImageSpec([(BELOW, label, False) for label in (1, 2, 3)], [(BELOW, 0.1, label) for label in (1, 2, 3)])
    # An object that is not found would be missed too.
    alone = ImageSpec([(LEFT, 1, False)], [(LEFT, 0.95, 1), (OFF_LEFT, 0.9, 2)])
    image = alone if name == "both" else PLANTED[name]
    split = error_split(make_record([image, others]))
    assert split.map < 1
    assert split.errors[name].count == 1
    assert split.map + split.errors[name].gain == pytest.approx(1)
    assert sum(share.gain for share in split.errors.values()) == pytest.approx(split.errors[name].gain)


def test_map_is_vocs_where_no_detection_has_a_second_object() -> None:
    record = random_record(0, objects_an_image=2, num_classes=8, difficult=0.2)
    area = voc_average_precision(record.detections, record.objects, num_classes=8).area
    assert error_split(record).map == pytest.approx(float(area.nanmean()), abs=1e-12)


def test_a_detection_whose_object_is_taken_hits_another() -> None:
    """VOC's rule calls it a miss."""
    image = ImageSpec([(LEFT, 1, False), (NEAR_LEFT, 1, False)], [(LEFT, 0.9, 1), (LEFT, 0.8, 1)])
    assert error_split(make_record([image])).map == 1


def test_difficult_objects_are_neither_errors_nor_missed() -> None:
    image = ImageSpec(
        [(LEFT, 1, True), (RIGHT, 1, False)], [(LEFT, 0.9, 1), (LEFT, 0.8, 1), (RIGHT, 0.7, 1), (LEFT, 0.6, 2)]
    )
    split = error_split(make_record([image]))
    assert split.map == 1
    assert counts(split) == dict.fromkeys(ERROR_TYPES, 0) | {"background": 1}


@pytest.mark.parametrize("name", [name for name, record in EMPTY.items() if record.objects.difficult.all()])
def test_without_counted_objects_nothing_is_known(name: str) -> None:
    split = error_split(EMPTY[name])
    assert math.isnan(split.map)
    assert all(map(math.isnan, gains(split).values()))
    assert split.errors["missed"].count == 0


def test_without_detections_everything_is_missed() -> None:
    split = error_split(EMPTY["no detections"])
    assert split.map == 0
    assert split.errors["missed"] == ErrorShare(count=2, gain=1)
    assert all(share.gain == share.count == 0 for name, share in split.errors.items() if name != "missed")
