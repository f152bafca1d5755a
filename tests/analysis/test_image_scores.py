import numpy as np
import pytest

from helpers.evaluation_records import (
    EMPTY,
    LEFT,
    PLANTED,
    RIGHT,
    ImageSpec,
    make_record,
    planted_record,
    random_record,
    slow_matches,
)
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.image_scores import image_scores


@pytest.mark.parametrize("score_threshold", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(2))
def test_scores_are_the_panoptic_quality_image_by_image(seed: int, score_threshold: float) -> None:
    record = random_record(seed, difficult=0.3 * (seed % 2))
    result = image_scores(record, score_threshold=score_threshold)
    taken, strays, missed = slow_matches(record, iou_threshold=0.5, score_threshold=score_threshold, same_class=True)
    for index in range(len(record.image_ids)):
        ious = [iou for row, (_, iou) in taken.items() if record.detections.image_index[row] == index]
        false_positives = sum(int(record.detections.image_index[row]) == index for row in strays)
        num_missed = sum(int(record.objects.image_index[other]) == index for other in missed)
        counts = result.hits[index], result.false_positives[index], result.missed[index]
        assert counts == (len(ious), false_positives, num_missed)
        divisor = len(ious) + false_positives / 2 + num_missed / 2
        assert result.scores[index] == pytest.approx(sum(ious) / divisor if divisor else 1.0, abs=1e-12)


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
