"""The verification fails where it should: it is worth no more than that."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from helpers.exported_networks import exported, noise, tiny_detector
from helpers.targets import make_target
from ssd_lightning.data.resize import Letterbox, Stretch
from ssd_lightning.errors import WeightsError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.export.verify_export import (
    Parity,
    Verification,
    drawn_images,
    verification_table,
    verify_export,
)
from ssd_lightning.inference.runtime.description import ExportDescription
from ssd_lightning.types import Detections


def found(*rows: tuple[float, float, int]) -> Detections:
    """Squares of side .1 at x = y = the first number, with a score and a label."""
    corners = torch.tensor([[place, place, place + 0.1, place + 0.1] for place, _, _ in rows]).reshape(-1, 4)
    scores, labels = torch.tensor([row[1] for row in rows]), torch.tensor([row[2] for row in rows], dtype=torch.int64)
    return Detections(boxes=corners, scores=scores, labels=labels)


def test_differences_and_partners() -> None:
    parity = Parity()
    ours = found((0.1, 0.9, 1), (0.3, 0.8, 2), (0.6, 0.7, 1))
    parity.update(ours, found((0.3, 0.801, 2), (0.1001, 0.9, 1), (0.6, 0.7, 3)), (100, 200))
    assert (parity.images, parity.detections, parity.others, parity.unmatched) == (1, 3, 3, 2)
    largest = (parity.boxes, parity.boxes_px, parity.scores, parity.unmatched_share)
    assert largest == pytest.approx((1e-4, 0.02, 1e-3, 1 / 3), rel=1e-3)
    parity.update(found((0.1, 0.9, 1)), found((0.1, 0.9, 1)), (9, 9))  # the largest differences stay
    assert (parity.boxes, parity.boxes_px, parity.scores) == largest[:3]
    assert (parity.images, parity.detections, parity.others, parity.unmatched) == (2, 4, 4, 2)
    parity = Parity()  # each has one partner, the nearest
    ours, theirs = found((0.1, 0.5, 1), (0.101, 0.5, 1)), found((0.101, 0.5, 1), (0.1, 0.5, 1), (0.1, 0.5, 1))
    parity.update(ours, theirs, (10, 10))
    assert (parity.boxes, parity.scores, parity.unmatched) == (0, 0, 1)
    parity = Parity()  # no detections on one side or both
    assert parity.unmatched_share == 0
    parity.update(found(), found(), (9, 9))
    assert parity == Parity(images=1)
    parity.update(found((0.1, 0.5, 1)), found(), (9, 9))
    assert parity == Parity(images=2, detections=1, unmatched=1)


def verification_of(checkpoint: Detector, path: Path) -> Verification:
    images = drawn_images(6, checkpoint.image_size)
    batches = [(checkpoint.prepare(images)[0], None), (noise(4, checkpoint.image_size), None)]
    return verify_export(checkpoint, Detector.load(path), batches, images)


def test_a_faithful_file_passes(faithful: Path) -> None:
    verification = verification_of(tiny_detector(), faithful)
    assert (verification.parity.images, verification.whole.images) == (10, 6)
    assert verification.whole.boxes > 0  # it did resize
    assert verification.failures(tolerance=1e-4, max_map_loss=0.0) == []
    assert len(verification.failures(tolerance=0.0, max_map_loss=0.0)) >= 1
    seconds = {1: ((2.0,), (1.0,))}
    table = verification_table(verification, tolerance=1e-4, max_map_loss=0.01, seconds=seconds, bytes_of=(4, 1))
    assert [row[0] for row in table.rows[:6]] == [f"{a}{b}" for a in ("", "resized: ") for b in ROWS]
    assert table.rows[6] == ("time, batch of 1", "2 s", "1 s", "x 2.00", "")
    assert {len(row) for row in (table.header, *table.rows)} == {5}
    few = Verification(Parity(images=1, detections=10, others=10, unmatched=1))
    (first, *_) = verification_table(few, tolerance=1e-4, max_map_loss=0, seconds={}, bytes_of=(4, 1)).rows
    assert first == ("detections", "10", "10", "1 without partner (5.0%)", "0.5%")  # shares that can be compared


ROWS = ("detections", "boxes", "scores")


def test_a_changed_weight_and_exchanged_colours_are_found(faithful: Path) -> None:
    detector = tiny_detector()
    loaded, images = Detector.load(faithful), drawn_images(8, detector.image_size)
    images = [image // 2 + np.array([0, 60, 127], np.uint8) for image in images]
    assert not verify_export(detector, loaded, [], images).failures(tolerance=1e-4, max_map_loss=1.0)
    run = loaded.net.run
    loaded.net.run = lambda inputs: run(inputs.flip(3))
    (failure,) = verify_export(detector, loaded, [], images).failures(tolerance=1e-4, max_map_loss=1.0)
    assert "in images that the file resizes have no partner" in failure
    with torch.no_grad():
        detector.network.head.cls[0].weight[1, 2, 1, 1] += 0.01
    failures = verification_of(detector, faithful).failures(tolerance=1e-4, max_map_loss=1.0)
    assert any("scores differ" in failure for failure in failures)


@pytest.mark.parametrize("inside", [True, False])
def test_letterboxed_files_are_verified_and_find_the_same_in_whole_images(tmp_path: Path, inside: bool) -> None:
    detector = tiny_detector()
    detector.resize = Letterbox(fill=(0, 100, 200))
    path = exported(detector, tmp_path, ".torchscript", preprocessing=inside, nms=inside)
    verification, loaded = verification_of(detector, path), Detector.load(path)
    assert verification.failures(tolerance=1e-4, max_map_loss=0.0) == []
    assert verification.whole is None  # the file resizes nothing
    assert loaded.resize == detector.resize
    images = drawn_images(3, (64, 20))
    for ours, theirs in zip(detector(images), loaded(images), strict=True):
        assert len(ours) > 0
        np.testing.assert_allclose(theirs.boxes_xyxy_px, ours.boxes_xyxy_px, atol=1e-2)
        np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-4)
    metadata = loaded.net.description.as_metadata()
    assert "top left corner, the rest filled with the RGB colour [0, 100, 200]" in metadata["inputs"]
    older = {name: text for name, text in metadata.items() if name != "resize"}
    assert ExportDescription.from_metadata(older, path).resize == Stretch()
    with pytest.raises(WeightsError, match=r"resize is 'crop'; it can be stretch or letterbox"):
        ExportDescription.from_metadata({**metadata, "resize": '"crop"'}, path)


def test_mean_average_precision_of_both_sides(faithful: Path) -> None:
    detector = tiny_detector()
    images = noise(4, detector.image_size)
    truth = [
        make_target(seen["boxes"][:3], seen["labels"][:3], image_id=str(index))
        for index, seen in enumerate(detector.detect(images))
    ]
    verification = verify_export(detector, Detector.load(faithful), [(images, truth)])
    assert set(verification.scores) == {"mAP 11-point", "mAP area", "mAP .5:.95"}
    assert all(0 < before <= 1 and before == pytest.approx(after) for before, after in verification.scores.values())
    assert verification.map_loss == pytest.approx(0)
    own = replace(detector.postprocess, iou_threshold=0.0)
    with_own = verify_export(detector, Detector.load(faithful), [(images, truth)], own=own)
    assert (with_own.parity, with_own.scores) == (verification.parity, verification.scores)
    assert {name: 0 < value < with_own.scores[name][0] - 0.05 for name, value in with_own.own_scores.items()} == (
        dict.fromkeys(with_own.scores, True)
    )
    worse = Verification(
        verification.parity, None, {"mAP area": (0.8, 0.75), "mAP 11-point": (0.7, 0.72), "mAP": (math.nan,) * 2}
    )
    assert worse.map_loss == pytest.approx(0.05)
    assert worse.failures(tolerance=None, max_map_loss=0.05001) == []
    assert "mAP is lower by 0.0500" in worse.failures(tolerance=None, max_map_loss=0.04)[0]
    far = Parity(images=1, detections=10, others=10, unmatched=20, boxes=0.5, boxes_px=9.0, scores=0.5)
    assert len(Verification(far).failures(tolerance=1e-4, max_map_loss=0.01)) == 3
    assert Verification(far).failures(tolerance=None, max_map_loss=0.01) == []  # as a rounded network is judged


def test_int8_is_smaller_and_sees_about_the_same(faithful: Path, tmp_path: Path) -> None:
    from ssd_lightning.inference.export.files import quantize_int8

    detector = tiny_detector()
    target, description = tmp_path / "int8.onnx", Detector.load(faithful).net.description
    inputs = [noise(1, detector.image_size, seed).permute(0, 2, 3, 1).numpy() for seed in range(8)]
    quantize_int8(faithful, target, description, inputs)
    tensors = [numpy_helper.to_array(tensor) for tensor in onnx.load(target).graph.initializer]
    weights = np.concatenate([tensor.ravel() for tensor in tensors if tensor.dtype == np.int8])
    assert len(weights) > 1000
    assert np.abs(weights.astype(int)).max() == 64, "sums of 16 bits overflow on processors without VNNI"
    images = noise(4, detector.image_size, seed=99)
    ours = torch.cat([found["scores"][:3] for found in detector.detect(images)])
    for backend in ("onnx", "openvino"):
        loaded = Detector.load(target, backend=backend)
        assert loaded.net.description == replace(description, quantization="int8")
        theirs = torch.cat([found["scores"][:3] for found in loaded.detect(images)])
        assert not torch.equal(ours, theirs)
        torch.testing.assert_close(theirs, ours, rtol=0, atol=0.1)
