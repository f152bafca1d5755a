import pytest
import torch
from torchvision.ops import box_iou

from helpers.evaluation_records import EMPTY, random_record
from ssd_lightning.analysis.matching import Pairs, best_partner, by_preference, match_in_order, overlapping_pairs


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
    monkeypatch.setattr("ssd_lightning.analysis.matching._BLOCK", 7)
    record = random_record(seed, num_images=9, detections_an_image=6)
    pairs = overlapping_pairs(record.detections, record.objects, least_overlap=0.3, same_class=same_class)
    expected = slow_pairs(record, 0.3, same_class)
    assert list(zip(pairs.detection.tolist(), pairs.object.tolist(), strict=True)) == expected
    assert len(expected) > 5


@pytest.mark.parametrize("record", EMPTY.values(), ids=EMPTY.keys())
def test_nothing_pairs_with_nothing(record) -> None:
    pairs = overlapping_pairs(record.detections, record.objects, least_overlap=0.5)
    num_detections, num_objects = len(record.detections.labels), len(record.objects.labels)
    taken = match_in_order(by_preference(pairs), num_detections=num_detections, num_objects=num_objects)
    partner, overlap = best_partner(pairs, num_detections)
    assert ((taken >= 0) == (partner >= 0)).all()
    assert ((overlap >= 0.5) == (partner >= 0)).all()


def draw_pairs(seed: int, num_detections: int, num_objects: int) -> Pairs:
    """Few different overlaps, so that ties are many."""
    generator = torch.Generator().manual_seed(seed)
    joined = (torch.rand(num_detections, num_objects, generator=generator) < 0.4).nonzero()
    overlap = torch.randint(1, 4, (len(joined),), generator=generator).double() / 4
    return Pairs(joined[:, 0], joined[:, 1], overlap)


def in_turn(
    pairs: Pairs, num_detections: int, last_choice: list[bool], shared: list[bool], later_of_equals: bool
) -> list[int]:
    """The slow twin: one detection after the other looks at all that is free."""
    free = set(range(len(shared)))
    taken = [-1] * num_detections
    rows = list(zip(*(column.tolist() for column in pairs), strict=True))
    for detection in range(num_detections):
        wanted = [(other, overlap) for row, other, overlap in rows if row == detection and other in free]
        if wanted:
            sign = -1 if later_of_equals else 1
            best, _ = min(wanted, key=lambda pair: (last_choice[pair[0]], -pair[1], sign * pair[0]))
            taken[detection] = best
            free -= set() if shared[best] else {best}
    return taken


@pytest.mark.parametrize("later_of_equals", [False, True])
@pytest.mark.parametrize("seed", range(0, 60, 7))
def test_asking_all_at_once_ends_as_choosing_in_turn(seed: int, later_of_equals: bool) -> None:
    num_detections, num_objects = 1 + seed % 13, 1 + seed % 6
    pairs = draw_pairs(seed, num_detections, num_objects)
    generator = torch.Generator().manual_seed(seed)
    last_choice, shared = torch.rand(2, num_objects, generator=generator) < torch.tensor([[0.4], [0.2]])
    preferred = by_preference(pairs, last_choice=last_choice, later_of_equals=later_of_equals)
    taken = match_in_order(preferred, num_detections=num_detections, num_objects=num_objects, shared=shared)
    expected = in_turn(pairs, num_detections, last_choice.tolist(), shared.tolist(), later_of_equals)
    assert taken.tolist() == expected
