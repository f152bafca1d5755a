import numpy as np
import pytest
from torchvision.ops import box_iou

from helpers.evaluation_records import (
    EMPTY,
    LEFT,
    PLANTED,
    RIGHT,
    ImageSpec,
    make_record,
    planted_record,
    random_record,
)
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.image_scores import image_scores


def slow_scores(record: EvaluationRecord, score_threshold: float) -> list[tuple[float, int, int, int]]:
    """Image by image: score, hits, false positives, missed."""
    objects, found, rows = record.objects, record.detections, []
    for index in range(len(record.image_ids)):
        there = (objects.image_index == index).nonzero()[:, 0].tolist()
        free, ious, false_positives = {o for o in there if not objects.difficult[o]}, [], 0
        total = len(free)
        for row in record.detections.scores.argsort(descending=True).tolist():
            if found.image_index[row] != index or found.scores[row] < score_threshold:
                continue
            overlaps = {
                o: box_iou(found.boxes[row : row + 1].double(), objects.boxes[o : o + 1].double()).item()
                for o in there
                if objects.labels[o] == found.labels[row]
            }
            enough = [o for o, iou in overlaps.items() if iou >= 0.5]
            takeable = [o for o in enough if o in free]
            if takeable:
                best = max(takeable, key=overlaps.__getitem__)
                free.remove(best)
                ious.append(overlaps[best])
            elif not any(objects.difficult[o] for o in enough):
                false_positives += 1
        divisor = len(ious) + false_positives / 2 + len(free) / 2
        assert total == len(ious) + len(free)
        rows.append((sum(ious) / divisor if divisor else 1.0, len(ious), false_positives, len(free)))
    return rows


@pytest.mark.parametrize("score_threshold", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(2))
def test_scores_are_the_panoptic_quality_image_by_image(seed: int, score_threshold: float) -> None:
    record = random_record(seed, difficult=0.3 * (seed % 2))
    result = image_scores(record, score_threshold=score_threshold)
    scores, *counts = zip(*slow_scores(record, score_threshold), strict=True)
    assert result.scores == pytest.approx(np.array(scores), abs=1e-12)
    for column, expected in zip((result.hits, result.false_positives, result.missed), counts, strict=True):
        assert column.tolist() == list(expected)


def test_planted_images_come_in_order() -> None:
    result = image_scores(planted_record())
    assert [list(PLANTED)[index] for index in result.best_first] == [
        "right", "duplicate", "background", "missed",  # a hit each; of equal ones by id
        "nothing", "difficult",  # nothing to see
        "background alone", "missed alone",  # one error
        "class", "localisation", "both",  # two
    ]  # fmt: skip
    assert result.scores[list(PLANTED).index("duplicate")] == pytest.approx(2 / 3, abs=1e-6)


def test_a_loose_box_is_worse_than_a_tight_one_and_a_false_detection_than_none() -> None:
    loose = (0.1, 0.1, 0.4, 0.5)
    objects = [(LEFT, 1, False)]
    images = [ImageSpec(objects, [(box, 0.9, 1)]) for box in (loose, LEFT)]
    images.append(ImageSpec(objects, [(LEFT, 0.9, 1), (RIGHT, 0.8, 1), (RIGHT, 0.7, 2)]))
    result = image_scores(make_record(images))
    assert result.scores == pytest.approx([0.75, 1.0, 0.5], abs=1e-6)
    assert result.best_first.tolist() == [1, 0, 2]


@pytest.mark.parametrize("record", EMPTY.values(), ids=EMPTY.keys())
def test_every_image_has_a_score(record: EvaluationRecord) -> None:
    result = image_scores(record)
    assert np.isfinite(result.scores).all()
    assert ((result.scores >= 0) & (result.scores <= 1)).all()
    assert sorted(result.best_first) == list(range(len(record.image_ids)))
