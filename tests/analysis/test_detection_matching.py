import pytest
import torch
from torchvision.ops import box_iou

from helpers.evaluation_records import random_record
from ssd_lightning.analysis.matching import by_preference, match_in_order
from ssd_lightning.metrics.average_precision import Pairs, overlapping_pairs


def slow_pairs(record, least: float, same_class: bool) -> list[tuple[int, int]]:
    found, objects = record.detections, record.objects
    return [
        (row, other)
        for row in range(len(found.labels))
        for other in range(len(objects.labels))
        if found.image_index[row] == objects.image_index[other]
        and (not same_class or found.labels[row] == objects.labels[other])
        and box_iou(found.boxes[row : row + 1].double(), objects.boxes[other : other + 1].double()).item() >= least
    ]


@pytest.mark.parametrize("same_class", [True, False])
@pytest.mark.parametrize("seed", [0])
def test_pairs_are_those_of_all_detections_with_all_objects(
    seed: int, same_class: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssd_lightning.metrics.average_precision._BLOCK", 7)
    record = random_record(seed, num_images=9, detections_an_image=6)
    pairs = overlapping_pairs(record.detections, record.objects, least_overlap=0.3, same_class=same_class)
    expected = slow_pairs(record, 0.3, same_class)
    assert list(zip(pairs.detection.tolist(), pairs.object.tolist(), strict=True)) == expected
    assert len(expected) > 5


def draw_pairs(seed: int, num_detections: int, num_objects: int) -> Pairs:
    """Few different overlaps, so that ties are many."""
    generator = torch.Generator().manual_seed(seed)
    joined = (torch.rand(num_detections, num_objects, generator=generator) < 0.4).nonzero()
    overlap = torch.randint(1, 4, (len(joined),), generator=generator).double() / 4
    return Pairs(joined[:, 0], joined[:, 1], overlap)


def in_turn(pairs: Pairs, num_detections: int, num_objects: int) -> list[int]:
    """The slow twin: one detection after the other looks at all that is free."""
    free = set(range(num_objects))
    taken = [-1] * num_detections
    rows = list(zip(*(column.tolist() for column in pairs), strict=True))
    for detection in range(num_detections):
        wanted = [(other, overlap) for row, other, overlap in rows if row == detection and other in free]
        if wanted:
            taken[detection], _ = min(wanted, key=lambda pair: (-pair[1], pair[0]))
            free.remove(taken[detection])
    return taken


@pytest.mark.parametrize("seed", range(0, 60, 7))
def test_asking_all_at_once_ends_as_choosing_in_turn(seed: int) -> None:
    num_detections, num_objects = 1 + seed % 13, 1 + seed % 6
    pairs = draw_pairs(seed, num_detections, num_objects)
    taken = match_in_order(by_preference(pairs), num_detections=num_detections, num_objects=num_objects)
    assert taken.tolist() == in_turn(pairs, num_detections, num_objects)
