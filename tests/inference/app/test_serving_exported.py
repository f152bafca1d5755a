"""Exported networks: where NMS is outside, the page does it; where it is inside, the page says so."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from torch import Tensor

from ssd_lightning.data.resize import Letterbox
from ssd_lightning.inference.app.app import Application
from ssd_lightning.inference.app.finding import LOWEST_SCORE, find_candidates, why_overlap_is_fixed
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.runtime.description import ExportDescription
from ssd_lightning.inference.runtime.network import ExportedNetwork
from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.ops.coder import decode
from ssd_lightning.ops.nms import batched_nms


class Exported(ExportedNetwork):
    """Stands for a file: another network's answers in the form that files give them."""

    def __init__(self, detector: Detector, *, nms: bool) -> None:
        description = ExportDescription(
            version="0",
            class_names=detector.class_names,
            image_size=detector.image_size,
            normalization=detector.net.normalization,
            preprocessing=True,
            nms=nms,
            postprocess=detector.postprocess,
        )
        super().__init__(Path("model.onnx"), description, torch.device("cpu"))
        self.detector = [detector]  # in a list, to be no part of this module

    def run(self, inputs: Tensor) -> Sequence[Tensor]:
        images = inputs.permute(0, 3, 1, 2)
        detector = self.detector[0]
        if self.description.nms:
            [found] = detector.detect(images)
            columns = found["boxes"], found["scores"], found["labels"], torch.tensor(len(found["scores"]))
            return [column[None] for column in columns]
        output = detector.net(images)
        return cxcywh_to_xyxy(decode(output.box_offsets, output.priors_cxcywh)), output.class_logits.softmax(-1)


def exported(detector: Detector, *, nms: bool) -> Detector:
    net = Exported(detector, nms=nms)
    return Detector(net, class_names=detector.class_names, postprocess=net.description.postprocess)


@torch.inference_mode()
def test_raw_outputs_leave_the_overlap_free(detector: Detector, image: np.ndarray) -> None:
    raw = exported(detector, nms=False)
    assert why_overlap_is_fixed(raw) is None
    candidates = find_candidates(raw, image)
    order = candidates.labels.argsort(stable=True)
    labels = candidates.labels[order]
    for overlap in (0.2, 0.45, 0.7):
        boxes, scores = candidates.boxes_xyxy_px[order], candidates.scores[order]
        kept = order[batched_nms(boxes, scores, labels, overlap)].sort().values[:150]
        postprocess = replace(detector.postprocess, iou_threshold=overlap, clip_first=True)
        wanted = Detector(detector.net, class_names=detector.class_names, postprocess=postprocess)(image)
        wanted = wanted.select(LOWEST_SCORE)
        assert len(wanted) > 10
        np.testing.assert_array_equal(candidates.labels[kept].numpy(), wanted.labels)
        np.testing.assert_allclose(candidates.scores[kept].numpy(), wanted.scores, atol=1e-5)
        np.testing.assert_allclose(candidates.boxes_xyxy_px[kept].numpy(), wanted.boxes_xyxy_px, atol=1e-2)


@torch.inference_mode()
@pytest.mark.parametrize("nms", [None, False, True])
def test_candidates_in_letterboxed_images_are_relative_to_these(
    detector: Detector, image: np.ndarray, nms: bool | None
) -> None:
    asked = detector if nms is None else exported(detector, nms=nms)
    letterboxing = Detector(
        asked.net,
        class_names=asked.class_names,
        postprocess=asked.postprocess,
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


@pytest.mark.parametrize("nms", [False, True])
def test_both_answer_as_the_network_does(detector: Detector, image: np.ndarray, png: bytes, nms: bool) -> None:
    application = Application(exported(detector, nms=nms), name="file", score_threshold=0.3)
    with TestClient(application.build(), base_url="http://127.0.0.1") as client:
        note = client.get("/api/model").json()["overlap_note"]
        assert (note is not None) == nms
        found = client.post("/api/detect", content=png).json()["detections"]
        candidates = client.post("/api/candidates", content=png).json()
    wanted = detector(image)
    assert [detection["class"] for detection in found] == wanted.select(0.3).names
    if nms:
        assert "NMS inside" in note
        np.testing.assert_allclose(candidates["scores"], wanted.select(LOWEST_SCORE).scores, atol=1e-6)
    else:
        assert len(candidates["scores"]) > len(wanted)
