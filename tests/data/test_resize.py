"""Images reach the network's input, and boxes come back to the images."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from helpers.datasets import annotation
from helpers.pixels import noise
from helpers.tiny_nets import tiny_net
from ssd_lightning.commands.evaluate import score
from ssd_lightning.data.augmentation import SSDAugmentation
from ssd_lightning.data.dataset import DetectionDataset, collate
from ssd_lightning.data.resize import (
    Letterbox,
    Resize,
    Stretch,
    as_resize_mode,
    boxes_into_input,
    plain_mode,
    undo,
    undo_detections,
)
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.metrics.voc import VOCMeanAveragePrecision
from ssd_lightning.types import Detections, Placement

SIZES_PX = [(375, 500), (500, 375), (1, 900), (900, 1), (3, 3), (333, 334), (97, 2048), (32, 48)]
INPUTS = [(32, 48), (320, 256)]
NOTHING = {"photometric": False, "expand": False, "crop": False, "flip": False}


def test_stretching_interpolates_bilinearly_and_leaves_boxes_alone():
    image, boxes = noise(60, 80), np.array([[0.1, 0.2, 0.5, 0.9], [0, 0, 1, 1]], np.float32)
    result, new_boxes, kept = Resize(image_size=[41, 97])(image, boxes, 0)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = interpolate(tensor, (41, 97), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    np.testing.assert_allclose(result, expected.numpy(), atol=1.5)
    np.testing.assert_array_equal(new_boxes, boxes)
    assert kept.tolist() == [0, 1]
    _, new_boxes, kept = Resize(image_size=8)(image, boxes[:0], 1)
    assert (new_boxes.shape, kept.shape) == ((0, 4), (0,))
    assert cv2.getNumThreads() <= 1  # beside the workers of the loader


@pytest.mark.parametrize("mode", [Stretch(), Letterbox()])
@pytest.mark.parametrize("image_size", INPUTS)
def test_boxes_go_into_the_input_and_come_back(mode, image_size):
    corners = np.random.default_rng(0).uniform(0, 1, (50, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    for size_px in SIZES_PX:
        placement = mode.placement(size_px, image_size)
        back = undo(torch.from_numpy(boxes_into_input(boxes, placement)), placement)
        np.testing.assert_allclose(back.numpy(), boxes, atol=1e-6)
    assert undo(torch.zeros(0, 4), placement).shape == (0, 4)


@pytest.mark.parametrize("image_size", INPUTS)
@pytest.mark.parametrize("size_px", SIZES_PX)
def test_letterboxing_keeps_the_aspect_ratio_and_fills_the_rest(size_px, image_size):
    letterbox = Letterbox(fill=(10, 20, 30))
    image, placement = letterbox.apply(np.full((*size_px, 3), 200, np.uint8), image_size)
    assert image.shape == (*image_size, 3)
    assert max(placement) == 1
    height, width = placement.height * image_size[0], placement.width * image_size[1]
    scale = min(image_size[0] / size_px[0], image_size[1] / size_px[1])
    for side, of_image in zip((height, width), size_px, strict=True):
        assert abs(side - of_image * scale) <= (0.5 if of_image * scale >= 0.5 else 1)
    height, width = round(height), round(width)
    assert (image[:height, :width] == 200).all()
    assert (image[height:] == (10, 20, 30)).all()
    assert (image[:, width:] == (10, 20, 30)).all()


def test_training_samples_lie_where_those_of_evaluation_do():
    """In the same corner, flipped or not, and with the same colour beside them."""
    image = np.full((50, 100, 3), 200, np.uint8)
    boxes = np.array([[0.0, 0.0, 0.5, 1.0]], dtype=np.float32)
    augment = SSDAugmentation(image_size=(64, 64), **{**NOTHING, "flip": True}, vertical_flip=True, resize="letterbox")
    seen = set()
    for seed in range(30):
        result, new_boxes, _ = augment(image, boxes, seed)
        assert (result[32:] == Letterbox().fill).all()
        assert (result[:32] == 200).all()
        seen.add(tuple(new_boxes[0].tolist()))
    assert seen == {(0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5)}


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("make", [Resize, SSDAugmentation])
def test_a_sample_of_another_size_is_that_of_a_transform_made_for_it(make, resize):
    image, boxes = noise(90, 130), np.array([[0.1, 0.2, 0.5, 0.9], [0.4, 0.4, 0.8, 0.7]], dtype=np.float32)
    transform = make(image_size=64, resize=resize)
    scaled, wanted = transform.at_size((96, 128)), make(image_size=(96, 128), resize=resize)
    for seed in range(3):
        for one, other in zip(scaled(image, boxes, seed), wanted(image, boxes, seed), strict=True):
            np.testing.assert_array_equal(one, other)
        assert transform(image, boxes, seed)[0].shape == (64, 64, 3)


class Perfect(Detector):
    """Finds what is there, in the coordinates of the network's input."""

    def __init__(self, truth: list, **settings):
        super().__init__(**settings)
        self.run = lambda images: [truth.pop(0) for _ in images]
        self.postprocess = lambda found: [
            Detections(boxes=t["boxes"], labels=t["labels"], scores=torch.ones(len(t["labels"]))) for t in found
        ]


def test_perfect_detections_in_letterboxed_images_score_one(tmp_path: Path):
    """One image is read at a fraction of its size, which rounds its sides; one has no objects."""
    records = []
    for height, width in [(97, 161), (60, 31), (50, 50), (40, 80)]:
        path, labels = tmp_path / f"{width}.jpg", [1, 2] if width != 80 else []
        Image.new("RGB", (width, height)).save(path)
        boxes = [[1, 2, width, height], [3, 4, width / 2, height / 2]]
        records.append(annotation(path, size_px=(height, width), boxes=boxes, labels=labels))
    transform = Resize(image_size=(32, 48), resize="letterbox")
    dataset = DetectionDataset(annotations=records, class_names=("a", "b"), transform=transform)
    dataset.least_size_px = (24, 40)
    truth = [dataset[index][1] for index in range(4)]
    assert "placement" in truth[0]
    detector = Perfect(truth, net=tiny_net(num_classes=2), class_names=("a", "b"), resize=Letterbox())
    voc = VOCMeanAveragePrecision(2)
    scores = score(detector, DataLoader(dataset, batch_size=3, collate_fn=collate), voc)
    assert (scores["images"], scores["map_area"], scores["map"]) == (4, 1, 1)
    keys, evaluation = voc.seen_by_all()
    by_size = {tuple(size): index for index, size in enumerate(evaluation.sizes_px.tolist())}
    for record in records:
        height, width = record.size_px
        for table in (evaluation.objects, evaluation.detections):
            boxes = table.boxes[table.image_index == by_size[record.size_px]].numpy() * [width, height, width, height]
            np.testing.assert_allclose(boxes, record.boxes_xyxy_px, atol=1e-3)
    assert len(keys) == 4


@pytest.mark.parametrize("boxes", [[[-0.1, 0.1, 0.9, 0.7]], []])
def test_boxes_that_reach_out_of_their_image_are_clipped_to_it(boxes):
    given, count = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), len(boxes)
    found = Detections(boxes=given, scores=torch.ones(count), labels=torch.ones(count, dtype=torch.int64))
    (undone,) = undo_detections([found], [Placement(1.0, 0.5)])
    torch.testing.assert_close(undone["boxes"], torch.tensor([[0.0, 0.2, 0.9, 1.0]])[:count])
    assert undo_detections([], []) == []


@pytest.mark.parametrize("mode", [Stretch(), Letterbox(), Letterbox(fill=(0, 1, 2))])
def test_modes_have_names_and_plain_values(mode):
    assert as_resize_mode(plain_mode(mode)) == as_resize_mode(mode) == mode
    assert as_resize_mode("letterbox") == Letterbox()
    assert as_resize_mode("stretch") == as_resize_mode(None) == Stretch()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("letter", "resize is 'letter'; it can be stretch or letterbox"),
        (3, "resize is 3"),
        ({"kind": ["x"]}, "it can be stretch or letterbox"),
        ({"kind": "stretch", "fill": [0, 0, 0]}, "resize is .*unexpected keyword argument 'fill'"),
        ({"kind": "letterbox", "fill": [0, 0]}, r"fill is \[0, 0\]; it is an RGB colour"),
        ({"kind": "letterbox", "fill": "red"}, "fill is 'red'"),
        ({"kind": "letterbox", "fill": [0, 0, 256]}, r"fill is \[0, 0, 256\]"),
        ({"kind": "letterbox", "fill": None}, "resize is .*None"),
    ],
)
def test_what_is_no_mode_is_refused(value, named):
    with pytest.raises(ConfigurationError, match=named):
        as_resize_mode(value)
