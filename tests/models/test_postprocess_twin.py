"""The fast post-processing against an image and a class at a time, wherever it takes a short cut."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection import ssd300_vgg16
from torchvision.ops import nms

from helpers.random_ssd import trained_like_output
from ssd_lightning.models import postprocess as module
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.boxes import clip_boxes, cxcywh_to_xyxy
from ssd_lightning.ops.coder import decode
from ssd_lightning.ops.nms import _nms_of_pairs
from ssd_lightning.ops.priors import SSD300_VOC, make_priors
from ssd_lightning.types import Detections, SSDOutput

PRIORS = make_priors(SSD300_VOC, 300)


def postprocess(output: SSDOutput, **settings: object) -> list[Detections]:
    return PostProcess(**settings)(output)  # type: ignore[arg-type]


def twin(
    output: SSDOutput,
    score_threshold: float = 0.01,
    iou_threshold: float = 0.45,
    top_k: int = 400,
    max_detections: int = 200,
    clip_first: bool = False,
) -> list[Detections]:
    detections = []
    for offsets, logits in zip(output.box_offsets, output.class_logits, strict=True):
        boxes = cxcywh_to_xyxy(decode(offsets, output.priors_cxcywh))
        boxes = clip_boxes(boxes) if clip_first else boxes
        all_scores = logits.float().softmax(-1)
        found: list[tuple[float, int, int]] = []
        for label in range(1, logits.shape[1]):
            scores = all_scores[:, label]
            best = sorted((-float(scores[k]), k) for k in range(len(boxes)) if scores[k] > score_threshold)[:top_k]
            priors = torch.tensor([k for _, k in best], dtype=torch.int64)
            kept = priors[nms(boxes[priors], scores[priors], iou_threshold)]
            found += [(-float(scores[k]), label, int(k)) for k in kept]
        found = sorted(found)[:max_detections]
        detections.append(
            Detections(
                boxes=clip_boxes(boxes[[k for *_, k in found]]) if found else torch.zeros(0, 4),
                scores=torch.tensor([-score for score, *_ in found]),
                labels=torch.tensor([label for _, label, _ in found], dtype=torch.int64),
            )
        )
    return detections


def check(output: SSDOutput, **settings: float) -> list[Detections]:
    found = postprocess(output, **settings)
    # Softmax over one prior and over thousands may be rounded differently; which detections they are may not differ.
    torch.testing.assert_close(found, twin(output, **settings), rtol=1e-6, atol=1e-6, equal_nan=True)
    return found


def draw(batch: int, num_priors: int, num_classes: int, seed: int, background: float = 0.0) -> SSDOutput:
    generator = torch.Generator().manual_seed(seed)
    priors = torch.rand(num_priors, 4, generator=generator) * 0.8 + 0.1
    offsets = torch.randn(batch, num_priors, 4, generator=generator)
    logits = 2 * torch.randn(batch, num_priors, num_classes + 1, generator=generator)
    logits[..., 0] += background
    return SSDOutput(offsets, logits, priors)


@pytest.fixture(params=["loop", "pairs"])
def either_nms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pairs":
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
    score_threshold=st.sampled_from([0.0, 1e-6, 0.01, 0.3, 0.9, 1.0]),
    iou_threshold=st.sampled_from([0.1, 0.45, 1.0]),
    top_k=st.sampled_from([1, 3, 400]),
    max_detections=st.sampled_from([1, 4, 200]),
    clip_first=st.booleans(),
    rounded=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_the_twin(
    batch: int,
    num_priors: int,
    num_classes: int,
    background: float,
    enough: int,
    score_threshold: float,
    iou_threshold: float,
    top_k: int,
    max_detections: int,
    clip_first: bool,
    rounded: bool,
    seed: int,
) -> None:
    output = draw(batch, num_priors, num_classes, seed, background)
    if rounded:
        output = output._replace(class_logits=output.class_logits.round())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ENOUGH_CANDIDATES", enough)
        check(
            output,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            top_k=top_k,
            max_detections=max_detections,
            clip_first=clip_first,
        )


@pytest.mark.usefixtures("either_nms")
def test_random_and_trained_logits_of_the_published_size() -> None:
    (sure,) = check(trained_like_output(1, PRIORS, 20))
    assert 1 <= len(sure["scores"]) < 200
    random = draw(1, 600, 20, seed=0)
    assert len(check(random)[0]["scores"]) == 200
    assert len(check(random, max_detections=10**6, top_k=50)[0]["scores"]) > 200


def test_torchvision_detects_the_same() -> None:
    with torch.device("meta"):
        peer = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=21).eval()
    for output in (trained_like_output(2, PRIORS, 20), draw(2, 1200, 20, seed=5)):
        anchors = [cxcywh_to_xyxy(output.priors_cxcywh) * 300] * 2
        theirs = peer.postprocess_detections(
            {"bbox_regression": output.box_offsets, "cls_logits": output.class_logits}, anchors, [(300, 300)] * 2
        )
        for expected, found in zip(theirs, postprocess(output, clip_first=True), strict=True):
            assert torch.equal(found["labels"], expected["labels"])
            torch.testing.assert_close(found["scores"], expected["scores"], rtol=1e-6, atol=0)
            torch.testing.assert_close(found["boxes"] * 300, expected["boxes"], rtol=0, atol=1e-3)


@pytest.mark.usefixtures("either_nms")
def test_equal_scores_go_by_class_then_by_prior() -> None:
    """Far more of them than are tried first, and only some are kept."""
    output = draw(2, 1200, 3, seed=0)._replace(class_logits=torch.zeros(2, 1200, 4))
    found = check(output, top_k=30, max_detections=40)
    assert all(detections["labels"].tolist() == sorted(detections["labels"].tolist()) for detections in found)


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
    found = postprocess(output._replace(class_logits=logits), soft_nms=soft_nms)
    torch.testing.assert_close(found, postprocess(output._replace(class_logits=silent), soft_nms=soft_nms))


@pytest.mark.usefixtures("either_nms")
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
    without = output._replace(class_logits=output.class_logits.clone())
    without.class_logits[0, 3, 0] = 1000
    others = found["boxes"].isfinite().all(dim=1)
    torch.testing.assert_close(found["boxes"][others], postprocess(without)[0]["boxes"])


@pytest.mark.usefixtures("either_nms")
def test_boxes_without_area() -> None:
    output = draw(1, 20, 2, seed=4)
    output.priors_cxcywh[::2, 2:] = 0
    check(output, clip_first=True)
    check(output._replace(box_offsets=output.box_offsets + 100), clip_first=True)  # all beside the image


def test_what_is_detected_holds_no_memory_but_its_own() -> None:
    for detections in postprocess(trained_like_output(2, PRIORS, 20), max_detections=5):
        assert detections["boxes"].untyped_storage().nbytes() <= 2 * 5 * 4 * 4


def test_gradients_stop_here() -> None:
    output = draw(1, 20, 2, seed=0)
    detections = postprocess(output._replace(class_logits=output.class_logits.requires_grad_()))
    assert not detections[0]["scores"].requires_grad
