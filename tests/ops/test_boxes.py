import math

import pytest
import torch

from ssd_lightning.ops.boxes import (
    boxes_to_pixels,
    broadcast_iou,
    clip_boxes,
    cxcywh_to_xyxy,
    valid_boxes,
    xyxy_to_cxcywh,
)


def test_conversions_invert_each_other() -> None:
    assert xyxy_to_cxcywh(torch.tensor([[0.1, 0.2, 0.5, 0.8]])).tolist()[0] == pytest.approx([0.3, 0.5, 0.4, 0.6])
    corners = torch.rand(2, 5, 2, 2, generator=torch.Generator().manual_seed(0)).sort(dim=2).values.flatten(2) * 5 - 2
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(corners)), corners, rtol=0, atol=1e-6)


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
        ([0.1, 0.3, 0.2, 0.2], False),
        ([math.nan, 0.1, 0.2, 0.2], False),
        ([0.1, 0.1, math.inf, 0.2], False),
    ],
)
def test_valid_boxes(box: list[float], valid: bool) -> None:
    assert valid_boxes(torch.tensor([[box]])).tolist() == [[valid]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.float64])
def test_iou_of_boxes_in_pixels_does_not_overflow(dtype: torch.dtype) -> None:
    iou = broadcast_iou(torch.tensor([[0, 0, 400, 400]]).to(dtype), torch.tensor([[0, 0, 200, 400]]).to(dtype))
    torch.testing.assert_close(iou, torch.tensor([0.5], dtype=torch.promote_types(dtype, torch.float32)))
