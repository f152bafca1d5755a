import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from helpers.evaluation_records import EMPTY, LEFT, ImageSpec, make_record, random_record
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.object_sizes import ap_by_size, recall_by_size

SMALL, LARGE = (0.0, 0.0, 0.1, 0.1), (0.5, 0.0, 1.0, 0.5)


def test_ap_counts_the_objects_of_a_size_alone() -> None:
    """In an image of 200 px: 20 px, found with an IoU of .7, beside 100 px, which are missed."""
    image = ImageSpec([(SMALL, 1, False), (LARGE, 1, False)], [((0.0, 0.0, 0.1, 0.07), 0.9, 1)])
    small, medium, large = ap_by_size(make_record([image], sizes_px=torch.tensor([[200, 200]])))
    assert (small.name, small.num_objects, small.ap_50) == ("small", 1, 1)
    assert small.ap == pytest.approx(0.5, abs=0.11)  # at .5, .55, .6, .65 and, but for rounding, .7
    assert (large.name, large.num_objects, large.ap, large.ap_50) == ("large", 1, 0, 0)
    assert medium.num_objects == 0
    assert math.isnan(medium.ap)


@pytest.mark.parametrize("record", EMPTY.values(), ids=EMPTY.keys())
def test_sizes_without_objects_have_no_ap(record: EvaluationRecord) -> None:
    counted = int((~record.objects.difficult).sum())
    rows = ap_by_size(record)
    assert sum(row.num_objects for row in rows) == counted
    for row in rows:
        assert math.isnan(row.ap) == math.isnan(row.ap_50) == (row.num_objects == 0)


def test_a_border_belongs_to_both_sizes() -> None:
    square = (0.0, 0.0, 0.25, 0.25)
    record = make_record([ImageSpec([(square, 1, False)], [(square, 0.9, 1)])], sizes_px=torch.tensor([[128, 128]]))
    assert [(row.num_objects, row.ap == 1) for row in ap_by_size(record)] == [(1, True), (1, True), (0, False)]


@pytest.mark.parametrize("bins", [1, 7])
def test_bins_hold_every_counted_object_once_and_equally_many(bins: int) -> None:
    record = random_record(0, num_images=60, difficult=0.2)
    rows = recall_by_size(record, bins, score_threshold=0.3)
    counted = int((~record.objects.difficult).sum())
    assert len(rows) == bins
    assert sum(row.num_objects for row in rows) == counted
    assert max(row.num_objects for row in rows) - min(row.num_objects for row in rows) <= 2
    for smaller, larger in pairwise(rows):
        assert smaller.largest_side_px < larger.least_side_px
    assert sum(row.num_found for row in rows) == recall_by_size(record, 1, score_threshold=0.3)[0].num_found
    assert all(0 <= row.recall <= 1 for row in rows)


def test_recall_counts_what_is_found_in_pixels_of_the_image() -> None:
    small, large = (0.0, 0.0, 0.125, 0.25), (0.5, 0.0, 1.0, 0.5)
    image = ImageSpec([(small, 1, False), (large, 1, False)], [(large, 0.9, 1), (small, 0.3, 1), (small, 0.9, 2)])
    record = make_record([image], sizes_px=torch.tensor([[100, 200]]))
    first, second = recall_by_size(record, 2)
    assert (first.num_objects, first.num_found, first.least_side_px) == (1, 0, 25.0)
    assert (second.num_objects, second.num_found) == (1, 1)
    assert second.largest_side_px == pytest.approx(np.sqrt(100 * 50))
    assert recall_by_size(record, 2, score_threshold=0.3)[0].recall == 1


def test_objects_of_one_size_lie_in_one_bin() -> None:
    record = make_record([ImageSpec([(LEFT, 1, False), (LEFT, 2, False), (LEFT, 3, False)], [(LEFT, 0.9, 2)])])
    (row,) = recall_by_size(record, 3)
    assert (row.num_objects, row.num_found) == (3, 1)
    assert recall_by_size(EMPTY["difficult objects alone"]) == []
