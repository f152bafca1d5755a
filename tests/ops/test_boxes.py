import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_convert

from ssd_lightning.ops.boxes import boxes_to_pixels, clip_boxes, cxcywh_to_xyxy, valid_boxes, xyxy_to_cxcywh

CORNERS = st.tuples(*[st.floats(-2, 3, width=32)] * 4)


@settings(deadline=None, max_examples=20)
@given(st.lists(CORNERS, max_size=5))
def test_conversions_equal_torchvision_and_invert_each_other(corners: list[tuple[float, ...]]) -> None:
    boxes = torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)
    boxes = torch.cat([boxes[:, :2].minimum(boxes[:, 2:]), boxes[:, :2].maximum(boxes[:, 2:])], dim=1)
    torch.testing.assert_close(xyxy_to_cxcywh(boxes), box_convert(boxes, "xyxy", "cxcywh"))
    torch.testing.assert_close(cxcywh_to_xyxy(boxes), box_convert(boxes, "cxcywh", "xyxy"))
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes, rtol=0, atol=1e-6)


def test_clip_and_pixels() -> None:
    boxes = torch.tensor([[-0.5, 0.25, 0.5, 1.5]])
    assert clip_boxes(boxes).tolist() == [[0, 0.25, 0.5, 1]]
    assert boxes_to_pixels(clip_boxes(boxes), (100, 200)).tolist() == [[0, 25, 100, 100]]  # height 100, width 200


@pytest.mark.parametrize(
    ("box", "valid"),
    [
        ([0.1, 0.1, 0.2, 0.2], True),
        ([-1.0, -1.0, 2.0, 2.0], True),  # outside is for the data's reader to judge
        ([0.1, 0.1, 0.1, 0.2], False),
        ([0.1, 0.2, 0.2, 0.2], False),
        ([0.3, 0.1, 0.2, 0.2], False),
        ([0.1, 0.3, 0.2, 0.2], False),
        ([math.nan, 0.1, 0.2, 0.2], False),
        ([0.1, 0.1, 0.2, math.nan], False),
        ([0.1, 0.1, math.inf, 0.2], False),
        ([-math.inf, 0.1, 0.2, 0.2], False),
    ],
)
def test_valid_boxes(box: list[float], valid: bool) -> None:
    assert valid_boxes(torch.tensor([[box]])).tolist() == [[valid]]
