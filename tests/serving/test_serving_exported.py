"""Exported networks: where suppression is outside, the page does it; where it is inside, the page says so."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from torch import Tensor

from ssd_lightning.data.resize import Letterbox
from ssd_lightning.detector import Detector
from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.ops.coder import decode
from ssd_lightning.ops.suppression import suppress_by_groups
from ssd_lightning.runtime.description import ExportDescription
from ssd_lightning.runtime.network import ExportedNetwork
from ssd_lightning.serving.app import Application
from ssd_lightning.serving.finding import LOWEST_SCORE, find_candidates, settings_of, why_overlap_is_fixed


class Exported(ExportedNetwork):
    """Stands for a file: another network's answers in the form that files give them."""

    def __init__(self, detector: Detector, *, suppression: bool) -> None:
        description = ExportDescription(
            version="0",
            class_names=detector.class_names,
            image_size=detector.image_size,
            normalization=detector.net.normalization,
            preprocessing=True,
            suppression=suppression,
            postprocess=settings_of(detector),
        )
        super().__init__(Path("model.onnx"), description, torch.device("cpu"))
        self.detector = [detector]  # in a list, to be no part of this module

    def run(self, inputs: Tensor) -> Sequence[Tensor]:
        images = inputs.permute(0, 3, 1, 2)
        detector = self.detector[0]
        if self.description.suppression:
            [found] = detector.detect(images)
            columns = found["boxes"], found["scores"], found["labels"], torch.tensor(len(found["scores"]))
            return [column[None] for column in columns]
        output = detector.net(images)
        return cxcywh_to_xyxy(decode(output.box_offsets, output.priors_cxcywh)), output.class_logits.softmax(-1)


def exported(detector: Detector, *, suppression: bool) -> Detector:
    net = Exported(detector, suppression=suppression)
    return Detector(net, class_names=detector.class_names, postprocess_settings=net.description.postprocess)


@torch.inference_mode()
def test_raw_outputs_leave_the_overlap_free(detector: Detector, image: np.ndarray) -> None:
    raw = exported(detector, suppression=False)
    assert why_overlap_is_fixed(raw) is None
    candidates = find_candidates(raw, image)
    order = candidates.labels.argsort(stable=True)
    labels = candidates.labels[order]
    for overlap in (0.2, 0.45, 0.7):
        boxes, scores = candidates.boxes_xyxy_px[order], candidates.scores[order]
        kept = order[suppress_by_groups(boxes, scores, labels, overlap)].sort().values[:150]
        settings = {**detector.postprocess_settings, "iou_threshold": overlap, "clip_first": True}
        wanted = Detector(detector.net, class_names=detector.class_names, postprocess_settings=settings)(image)
        wanted = wanted.select(LOWEST_SCORE)
        assert len(wanted) > 10
        np.testing.assert_array_equal(candidates.labels[kept].numpy(), wanted.labels)
        np.testing.assert_allclose(candidates.scores[kept].numpy(), wanted.scores, atol=1e-5)
        np.testing.assert_allclose(candidates.boxes_xyxy_px[kept].numpy(), wanted.boxes_xyxy_px, atol=1e-2)


@torch.inference_mode()
@pytest.mark.parametrize("suppression", [None, False, True])
def test_candidates_in_letterboxed_images_are_relative_to_these(
    detector: Detector, image: np.ndarray, suppression: bool | None
) -> None:
    asked = detector if suppression is None else exported(detector, suppression=suppression)
    letterboxing = Detector(
        asked.net,
        class_names=asked.class_names,
        postprocess_settings=asked.postprocess_settings,
        resize=Letterbox(),
    )
    image = image[:60]
    found, candidates = letterboxing(image), find_candidates(letterboxing, image)
    height, width = image.shape[:2]
    inside = candidates.boxes_xyxy_px.numpy().clip(0, [width, height, width, height])
    assert len(found) > 0
    np.testing.assert_allclose(inside[0], found.boxes_xyxy_px[0], atol=1e-2)
    assert candidates.scores[0].item() == pytest.approx(found.scores[0].item(), abs=1e-5)
    assert np.abs(inside - detector(image).boxes_xyxy_px[0]).max(axis=1).min() > 1  # stretched, they differ


@pytest.mark.parametrize("suppression", [False, True])
def test_both_answer_as_the_network_does(detector: Detector, image: np.ndarray, png: bytes, suppression: bool) -> None:
    application = Application(exported(detector, suppression=suppression), name="file", score_threshold=0.3)
    with TestClient(application.build(), base_url="http://127.0.0.1") as client:
        note = client.get("/api/model").json()["overlap_note"]
        assert (note is not None) == suppression
        found = client.post("/api/detect", content=png).json()["detections"]
        candidates = client.post("/api/candidates", content=png).json()
    wanted = detector(image)
    assert [detection["class"] for detection in found] == wanted.select(0.3).names
    if suppression:
        assert "suppression inside" in note
        np.testing.assert_allclose(candidates["scores"], wanted.select(LOWEST_SCORE).scores, atol=1e-6)
    else:
        assert len(candidates["scores"]) > len(wanted)
