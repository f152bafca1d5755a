"""The fast post-processing against an image, a class and a box at a time, wherever it takes a short cut."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou, nms

from helpers.random_ssd import trained_like_output
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models import postprocess as module
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.boxes import clip_boxes, cxcywh_to_xyxy
from ssd_lightning.ops.coder import decode
from ssd_lightning.ops.nms import _nms_of_pairs
from ssd_lightning.ops.priors import SSD300_VOC, make_priors
from ssd_lightning.types import Detections, SSDOutput

PRIORS = make_priors(SSD300_VOC, 300)
ALL = 10**6


def postprocess(output: SSDOutput, **settings: Any) -> list[Detections]:
    return PostProcess(**settings)(output)


def draw(batch: int, num_priors: int, num_classes: int, seed: int, background: float = 0.0) -> SSDOutput:
    generator = torch.Generator().manual_seed(seed)
    priors = torch.rand(num_priors, 4, generator=generator) * 0.8 + 0.1
    offsets = torch.randn(batch, num_priors, 4, generator=generator)
    logits = 2 * torch.randn(batch, num_priors, num_classes + 1, generator=generator)
    logits[..., 0] += background
    return SSDOutput(offsets, logits, priors)


def slow(
    output: SSDOutput,
    score_threshold: float = 0.01,
    iou_threshold: float = 0.45,
    top_k: int = 400,
    max_detections: int = 200,
    clip_first: bool = False,
    class_agnostic: bool = False,
) -> list[Detections]:
    """An image and a class at a time, with torchvision's `nms`."""
    detections = []
    for offsets, logits in zip(output.box_offsets, output.class_logits, strict=True):
        boxes = cxcywh_to_xyxy(decode(offsets, output.priors_cxcywh))
        boxes = clip_boxes(boxes) if clip_first else boxes
        scores = logits.float().softmax(-1)
        groups = []
        for label in range(1, logits.shape[1]):
            likely = (scores[:, label] > score_threshold).nonzero()[:, 0].tolist()
            best = sorted((-float(scores[k, label]), k) for k in likely)
            groups.append([(score, label, k) for score, k in best[:top_k]])
        groups = [sorted(row for rows in groups for row in rows)] if class_agnostic else groups
        found: list[tuple[float, int, int]] = []
        for rows in groups:
            kept = nms(boxes[[k for *_, k in rows]], torch.tensor([-score for score, *_ in rows]), iou_threshold)
            found += [rows[index] for index in kept.tolist()]
        found = sorted(found)[:max_detections]
        detections.append(
            Detections(
                boxes=clip_boxes(boxes[[k for *_, k in found]]),
                scores=torch.tensor([-score for score, *_ in found]),
                labels=torch.tensor([label for _, label, _ in found], dtype=torch.int64),
            )
        )
    return detections


def check(output: SSDOutput, **settings: Any) -> list[Detections]:
    found = postprocess(output, **settings)
    # Softmax over one prior and over thousands may be rounded differently; which detections they are may not differ.
    torch.testing.assert_close(found, slow(output, **settings), rtol=1e-6, atol=1e-6, equal_nan=True)
    return found


@pytest.fixture(params=["loop", "pairs"])
def either_nms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pairs":  # what an accelerator does
        monkeypatch.setattr(
            module, "batched_nms", lambda boxes, _, group, threshold: _nms_of_pairs(boxes, group, threshold)
        )


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(0, 3),
    num_priors=st.integers(0, 40),
    num_classes=st.integers(1, 5),
    background=st.sampled_from([0.0, 4.0, 50.0]),
    enough=st.sampled_from([1, 5, 1000]),
    rounded=st.booleans(),
    seed=st.integers(0, 2**31),
    settings=st.fixed_dictionaries(
        {
            "score_threshold": st.sampled_from([0.0, 1e-6, 0.01, 0.3, 0.9, 1.0]),
            "iou_threshold": st.sampled_from([0.1, 0.45, 1.0]),
            "top_k": st.sampled_from([1, 3, 400]),
            "max_detections": st.sampled_from([1, 4, 200]),
            "clip_first": st.booleans(),
            "class_agnostic": st.booleans(),
        }
    ),
)
def test_equals_the_slow_loop(
    batch: int, num_priors: int, num_classes: int, background: float, enough: int, rounded: bool, seed: int, settings
) -> None:
    output = draw(batch, num_priors, num_classes, seed, background)
    if rounded:
        output = output._replace(class_logits=output.class_logits.round())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ENOUGH_CANDIDATES", enough)
        check(output, **settings)


def test_detections_are_those_of_the_reference(reference_dir: Path) -> None:
    reference = np.load(reference_dir / "multibox_0.npz")
    offsets, logits = (torch.from_numpy(reference[name][:2]) for name in ("loc", "conf"))
    output = SSDOutput(offsets, 1.5 * logits, make_priors(SSD300_VOC, 300, clip=True))
    found = postprocess(output, score_threshold=0.3, iou_threshold=0.45, top_k=200, max_detections=ALL)
    for index, detections in enumerate(found):
        expected = torch.from_numpy(reference[f"detections_{index}"])
        expected = expected[expected[:, 1].argsort(descending=True)]
        assert detections["labels"].tolist() == expected[:, 0].long().tolist()
        torch.testing.assert_close(detections["scores"], expected[:, 1])
        # The reference does not clip.
        torch.testing.assert_close(detections["boxes"], expected[:, 2:].clamp(0, 1), rtol=0, atol=1e-5)
        assert (expected[:, 2:] < 0).any()


def test_equal_scores_go_by_class_then_by_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more of them than are tried first, and only some are kept."""
    monkeypatch.setattr(module, "ENOUGH_CANDIDATES", 20)
    check(draw(2, 400, 3, seed=0)._replace(class_logits=torch.zeros(2, 400, 4)), top_k=30, max_detections=40)


def test_equal_scores_of_soft_nms_go_by_class_too() -> None:
    """Class 2 has three boxes and class 1 has one."""
    logits = torch.full((1, 4, 3), -9.0)
    logits[0, [0, 1, 2, 3], [2, 2, 2, 1]] = 9.0
    priors = torch.tensor([[0.2 * i, 0.5, 0.1, 0.1] for i in range(1, 5)])
    (found,) = postprocess(SSDOutput(torch.zeros(1, 4, 4), logits, priors), soft_nms="linear", max_detections=3)
    assert found["labels"].tolist() == [1, 2, 2]
    torch.testing.assert_close(found["boxes"][1:, 0], torch.tensor([0.15, 0.35]))


def test_a_crowd_that_hides_the_rest_does_not_hide_it_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ten best priors are one and the same box; what is tried first leaves one detection, there are six."""
    monkeypatch.setattr(module, "ENOUGH_CANDIDATES", 8)
    priors = torch.tensor([[0.5, 0.5, 0.2, 0.2]] * 10 + [[0.1 * i, 0.1, 0.05, 0.05] for i in range(1, 6)])
    logits = torch.zeros(2, 15, 2)
    logits[..., 1] = torch.linspace(5, -1, 15)
    logits[1, 8:, 1] = -20  # of the second image nothing else is left
    first, second = check(SSDOutput(torch.zeros(2, 15, 4), logits, priors))
    assert (len(first["scores"]), len(second["scores"])) == (6, 1)


@pytest.mark.usefixtures("either_nms")
@pytest.mark.parametrize("soft_nms", [None, "linear", "gaussian"])
def test_a_logit_that_is_no_number_silences_its_prior(soft_nms: str | None) -> None:
    output = draw(2, 30, 3, seed=1)
    logits = output.class_logits.clone()
    logits[0, 4, 2], logits[0, 5, 0], logits[0, 6, 3], logits[0, 7] = math.nan, math.nan, math.inf, -math.inf
    silent = output.class_logits.clone()
    silent[0, 4:8, 0] = 1000
    for top_k in (400, 2):  # 2: the scores of all priors are compared first
        found, expected = (
            postprocess(output._replace(class_logits=each), soft_nms=soft_nms, top_k=top_k) for each in (logits, silent)
        )
        torch.testing.assert_close(found, expected)


def test_a_logit_of_minus_infinity_is_a_score_of_zero() -> None:
    output = draw(1, 30, 3, seed=2)
    output.class_logits[0, :, 2] = -math.inf
    output.class_logits[0, 3, 0] = -math.inf
    (found,) = check(output, score_threshold=0.0)
    assert set(found["labels"].tolist()) == {1, 3}


@pytest.mark.usefixtures("either_nms")
def test_an_offset_that_is_no_number_spoils_its_own_box_only() -> None:
    output = draw(1, 30, 2, seed=3)
    output.box_offsets[0, 3] = math.nan
    output.class_logits[0, 3, 1] = 9.0
    (found,) = check(output)
    assert found["boxes"].isnan().any(dim=1).sum() == 1
    output.class_logits[0, 3, 0] = 1000
    others = found["boxes"].isfinite().all(dim=1)
    torch.testing.assert_close(found["boxes"][others], postprocess(output)[0]["boxes"])


@pytest.mark.parametrize(("batch", "num_priors"), [(0, 5), (2, 0)])
def test_nothing_in_nothing_out(batch: int, num_priors: int) -> None:
    nothing = Detections(boxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.int64))
    for soft_nms in (None, "linear", "gaussian"):
        found = postprocess(draw(batch, num_priors, 3, seed=0), soft_nms=soft_nms)
        torch.testing.assert_close(found, [nothing] * batch)


@pytest.mark.parametrize(
    "shapes", [[(1, 5, 4), (1, 5, 3), (6, 4)], [(1, 4, 4), (1, 5, 3), (5, 4)], [(5, 4), (5, 3), (5, 4)]]
)
def test_an_output_whose_parts_do_not_fit_is_refused(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"logits .* and priors .*; they must be \[B, K, 4\]"):
        PostProcess()(SSDOutput(*map(torch.zeros, shapes)))


def test_half_precision_is_read_in_float32() -> None:
    output = draw(1, 50, 3, seed=0)
    half = output._replace(box_offsets=output.box_offsets.bfloat16(), class_logits=output.class_logits.bfloat16())
    full = output._replace(box_offsets=half.box_offsets.float(), class_logits=half.class_logits.float())
    torch.testing.assert_close(postprocess(half), postprocess(full), rtol=0, atol=0)


def test_detections_hold_no_memory_but_their_own_and_no_gradient() -> None:
    output = trained_like_output(2, PRIORS, 20)
    for detections in postprocess(output._replace(class_logits=output.class_logits.requires_grad_()), max_detections=5):
        assert detections["boxes"].untyped_storage().nbytes() <= 2 * 5 * 4 * 4
        assert not detections["scores"].requires_grad


def slow_soft_nms(
    output: SSDOutput, decay: str, iou_threshold: float, sigma: float, class_agnostic: bool
) -> list[list]:
    """Every score above .05 of every image: (lowered score, label, box), one box at a time."""
    results = []
    for offsets, logits in zip(output.box_offsets, output.class_logits, strict=True):
        boxes, scores = cxcywh_to_xyxy(decode(offsets, output.priors_cxcywh)), logits.softmax(-1)
        overlap = box_iou(boxes, boxes).tolist()
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
                    iou = overlap[best[0]][k]
                    linear = 1 - iou if iou >= iou_threshold else 1
                    left[k, c] *= linear if decay == "linear" else math.exp(-(iou**2) / sigma)
        results.append(taken)
    return results


@pytest.mark.parametrize("decay", ["linear", "gaussian"])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_soft_nms_equals_the_slow_loop(decay: str, class_agnostic: bool) -> None:
    output = draw(3, 25, 3, seed=1)
    settings = {"score_threshold": 0.05, "iou_threshold": 0.2, "soft_nms_sigma": 0.3, "class_agnostic": class_agnostic}
    found = postprocess(output, **settings, max_detections=20, soft_nms=decay)
    for detections, expected in zip(found, slow_soft_nms(output, decay, 0.2, 0.3, class_agnostic), strict=True):
        assert len(expected) > 10
        scores, labels, boxes = zip(*expected[:20], strict=True)
        assert detections["labels"].tolist() == list(labels)
        torch.testing.assert_close(detections["scores"], torch.tensor(scores), rtol=1e-4, atol=0)
        torch.testing.assert_close(detections["boxes"], clip_boxes(torch.stack(boxes)))


@pytest.mark.parametrize("soft_nms", [None, "gaussian"])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_candidates_of_the_class_vote(soft_nms: str | None, class_agnostic: bool, monkeypatch) -> None:
    monkeypatch.setattr(module, "ENOUGH_CANDIDATES", 30)
    output = draw(2, 80, 2, seed=5)
    settings = {"score_threshold": 0.2, "max_detections": 6, "soft_nms": soft_nms, "class_agnostic": class_agnostic}
    before, after = postprocess(output, **settings), postprocess(output, **settings, box_voting=0.3)
    moved = 0
    for image, (own, found) in enumerate(zip(before, after, strict=True)):
        boxes = cxcywh_to_xyxy(decode(output.box_offsets[image], output.priors_cxcywh))
        scores = output.class_logits[image].softmax(-1)
        for row, label in enumerate(own["labels"].tolist()):
            start = boxes[(clip_boxes(boxes) - own["boxes"][row]).abs().sum(1).argmin()]
            votes = (box_iou(start[None], boxes)[0] > 0.3) & (scores[:, label] > 0.2)
            mean = (boxes[votes] * scores[votes, label, None]).sum(0) / scores[votes, label].sum()
            torch.testing.assert_close(found["boxes"][row], mean.clamp(0, 1))
            moved += int(votes.sum() > 1)
        for name in ("scores", "labels"):
            assert torch.equal(own[name], found[name])
    assert moved > 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score_threshold", "high"),
        ("iou_threshold", math.nan),
        ("top_k", 0),
        ("max_detections", 1.5),
        ("soft_nms", "hard"),
        ("box_voting", 1.5),
        ("soft_nms", "null"),
        ("class_agnostic", 1),
        ("soft_nms_sigma", 0),
        ("variances", [0.1, -0.2]),
        ("variances", 3),
        ("nms_threshold", 0.45),
    ],
)
def test_settings_that_cannot_work_are_named_with_their_value(name: str, value: Any) -> None:
    wrong = value[1] if isinstance(value, list) else value
    with pytest.raises(ConfigurationError, match=rf"postprocess\.{name} .*is '?{wrong}'?"):
        PostProcess.from_settings({"top_k": 400, name: value})


def test_settings_are_read_back_from_plain_values() -> None:
    postprocess = PostProcess(soft_nms="linear", variances=(0.2, np.float64(0.1)), top_k=np.int64(7))
    assert PostProcess.from_settings(json.loads(json.dumps(postprocess.settings()))) == postprocess
