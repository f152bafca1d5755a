import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou, nms

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.boxes import clip_boxes, cxcywh_to_xyxy
from ssd_lightning.ops.coder import decode
from ssd_lightning.ops.priors import SSD300_VOC, make_priors
from ssd_lightning.types import Detections, SSDOutput


def postprocess(output: SSDOutput, **settings: object) -> list[Detections]:
    return PostProcess(**settings)(output)  # type: ignore[arg-type]


def draw_output(batch: int, num_priors: int, num_classes: int, seed: int, spread: float = 1.0) -> SSDOutput:
    generator = torch.Generator().manual_seed(seed)
    priors = torch.rand(num_priors, 4, generator=generator) * 0.8 + 0.1
    offsets = torch.randn(batch, num_priors, 4, generator=generator) * spread
    return SSDOutput(offsets, 3 * torch.randn(batch, num_priors, num_classes + 1, generator=generator), priors)


def test_small_boxes_of_a_large_batch_keep_their_overlap() -> None:
    """Two boxes of .004, IoU .46 or .44, in the last of 64 images of 20 classes, next to one of the largest size."""
    side = 0.004
    for iou, kept in ((0.46, 1), (0.44, 2)):
        shift = side * (1 - iou) / (1 + iou)
        priors = torch.tensor([[0.9, 0.9, side, side], [0.9 + shift, 0.9, side, side], [0.5, 0.5, 20.0, 20.0]])
        logits = torch.zeros(64, 3, 21)
        logits[-1, :2, 20] = torch.tensor([10.0, 9.0])
        logits[0, 2, 1] = 10
        detections = postprocess(SSDOutput(torch.zeros(64, 3, 4), logits, priors), score_threshold=0.5)
        assert len(detections[-1]["scores"]) == kept


def test_detections_are_those_of_the_reference(reference_dir: Path) -> None:
    reference = np.load(reference_dir / "multibox_0.npz")
    output = SSDOutput(
        torch.from_numpy(reference["loc"][:2]),
        1.5 * torch.from_numpy(reference["conf"][:2]),
        make_priors(SSD300_VOC, 300, clip=True),
    )
    found = postprocess(output, score_threshold=0.3, iou_threshold=0.45, top_k=200, max_detections=10**6)
    for index, detections in enumerate(found):
        expected = torch.from_numpy(reference[f"detections_{index}"])
        expected = expected[expected[:, 1].argsort(descending=True)]
        assert detections["labels"].tolist() == expected[:, 0].long().tolist()
        torch.testing.assert_close(detections["scores"], expected[:, 1])
        # The reference does not clip.
        torch.testing.assert_close(detections["boxes"], expected[:, 2:].clamp(0, 1), rtol=0, atol=1e-5)
        assert (expected[:, 2:] < 0).any()


def test_half_precision_is_read_in_float32() -> None:
    output = draw_output(1, 50, 3, seed=0)
    half = output._replace(box_offsets=output.box_offsets.bfloat16(), class_logits=output.class_logits.bfloat16())
    full = output._replace(box_offsets=half.box_offsets.float(), class_logits=half.class_logits.float())
    torch.testing.assert_close(postprocess(half), postprocess(full), rtol=0, atol=0)


@pytest.mark.parametrize(("batch", "num_priors"), [(0, 5), (2, 0)])
def test_nothing_in_nothing_out(batch: int, num_priors: int) -> None:
    nothing = Detections(boxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.int64))
    for soft_nms in (None, "linear", "gaussian"):
        found = postprocess(draw_output(batch, num_priors, 3, seed=0), soft_nms=soft_nms)
        torch.testing.assert_close(found, [nothing] * batch)


def slow_soft_nms(
    output: SSDOutput, decay: str, iou_threshold: float, sigma: float, class_agnostic: bool
) -> list[list]:
    """Every score above .05 of every image: (lowered score, label, box), one box at a time."""
    results = []
    for offsets, logits in zip(output.box_offsets, output.class_logits, strict=True):
        boxes, scores = cxcywh_to_xyxy(decode(offsets, output.priors_cxcywh)), logits.softmax(-1)
        places = [(k, c) for c in range(1, logits.shape[1]) for k in range(len(boxes)) if scores[k, c] > 0.05]
        left = {place: float(scores[place]) for place in places}
        taken = []
        while left:
            best = max(left, key=left.__getitem__)
            score = left.pop(best)
            if score <= 0.05:
                break
            taken.append((score, best[1], boxes[best[0]]))
            for k, c in left:
                if c == best[1] or class_agnostic:
                    iou = float(box_iou(boxes[best[0]][None], boxes[k][None]))
                    linear = 1 - iou if iou >= iou_threshold else 1
                    left[k, c] *= linear if decay == "linear" else math.exp(-(iou**2) / sigma)
        results.append(taken)
    return results


@pytest.mark.parametrize("decay", ["linear", "gaussian"])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_soft_nms_equals_the_slow_loop(decay: str, class_agnostic: bool) -> None:
    output = draw_output(3, 25, 3, seed=1)
    found = postprocess(
        output,
        score_threshold=0.05,
        iou_threshold=0.2,
        max_detections=20,
        soft_nms=decay,
        class_agnostic=class_agnostic,
        soft_nms_sigma=0.3,
    )
    for detections, expected in zip(found, slow_soft_nms(output, decay, 0.2, 0.3, class_agnostic), strict=True):
        assert len(detections["scores"]) == min(20, len(expected))
        for box, score, label, (their_score, their_label, their_box) in zip(
            detections["boxes"], detections["scores"], detections["labels"], expected, strict=False
        ):
            assert label == their_label
            assert score.item() == pytest.approx(their_score, rel=1e-4)
            torch.testing.assert_close(box, clip_boxes(their_box))


def test_class_agnostic_nms_is_that_of_one_class() -> None:
    """Torchvision's `nms` over the boxes of all classes together."""
    output = draw_output(3, 40, 4, seed=6)
    for index, detections in enumerate(
        postprocess(output, score_threshold=0.1, max_detections=10**6, class_agnostic=True)
    ):
        scores = output.class_logits[index].softmax(-1)[:, 1:]
        prior, label = (scores > 0.1).nonzero(as_tuple=True)
        boxes = cxcywh_to_xyxy(decode(output.box_offsets[index], output.priors_cxcywh))[prior]
        kept = nms(boxes, scores[prior, label], 0.45)
        assert torch.equal(detections["labels"], label[kept] + 1)
        torch.testing.assert_close(detections["boxes"], clip_boxes(boxes[kept]))
    by_class = postprocess(output, score_threshold=0.1, max_detections=10**6)
    assert sum(map(len, (d["scores"] for d in by_class))) > sum(
        len(d["scores"]) for d in postprocess(output, score_threshold=0.1, max_detections=10**6, class_agnostic=True)
    )


BAD_SETTINGS = [
    {"score_threshold": -0.1},
    {"score_threshold": "high"},
    {"iou_threshold": 45},
    {"iou_threshold": math.nan},
    {"iou_threshold": None},
    {"top_k": 0},
    {"top_k": 1.5},
    {"max_detections": "all"},
    {"soft_nms": "hard"},
    {"class_agnostic": 1},
    {"soft_nms_sigma": 0},
    {"variances": (0.1, -0.2)},
    {"variances": 3},
    {"nms_threshold": 0.45},
]


@pytest.mark.parametrize("setting", BAD_SETTINGS, ids=str)
def test_settings_that_cannot_work_are_named_with_their_value(setting: dict[str, object]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ConfigurationError) as caught:
        PostProcess.from_settings({"top_k": 400, **setting})
    assert f"postprocess.{name}" in str(caught.value)
    assert str(value[1] if isinstance(value, tuple) else value) in str(caught.value)


def test_settings_are_read_back_from_plain_values() -> None:
    postprocess = PostProcess(soft_nms="linear", variances=(0.2, 0.1), top_k=7)
    assert PostProcess.from_settings(json.loads(json.dumps(postprocess.settings()))) == postprocess
