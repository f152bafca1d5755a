"""Mosaic: boxes stay on their objects, and the draws hang on seed, epoch and index alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.datasets import annotation
from helpers.targets import make_target
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.mosaic import Mosaic, draw_window
from ssd_lightning.data.sampler import SampleKey
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.types import Target

COLOURS = {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255), 4: (255, 255, 0)}


Sample = tuple[np.ndarray, Target]


def with_objects(image: np.ndarray, boxes: Any, labels: list[int], difficult: list[bool]) -> Sample:
    return image, {**make_target(boxes, labels), "difficult": torch.tensor(difficult, dtype=torch.bool)}


def one_object(label: int, size: tuple[int, int], box_px: tuple[int, int, int, int]) -> Sample:
    """A black image with one rectangle in the colour of its class."""
    image = np.zeros((*size, 3), dtype=np.uint8)
    left, top, right, bottom = box_px
    image[top:bottom, left:right] = COLOURS[label]
    return with_objects(image, np.array([box_px]) / np.array([size[1], size[0]] * 2), [label], [label == 2])


MOSAIC = Mosaic(probability=1.0)
FOUR = [
    one_object(1, (240, 320), (60, 40, 220, 160)),
    one_object(2, (240, 320), (100, 60, 260, 180)),
    one_object(3, (300, 200), (30, 60, 150, 260)),
    one_object(4, (100, 120), (20, 20, 100, 80)),
]


@pytest.mark.parametrize("seed", range(4))
def test_boxes_stay_on_their_objects(seed: int) -> None:
    image, target = MOSAIC.join(np.random.default_rng(seed), FOUR)

    assert image.shape == (240, 320, 3)
    assert ((target["boxes"] >= 0) & (target["boxes"] <= 1)).all()
    for box, label in zip(target["boxes"].numpy(), target["labels"], strict=True):
        difference = np.abs(image.astype(int) - COLOURS[int(label)]).max(axis=2)
        rows, columns = np.nonzero(difference < 100)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(box * [320, 240, 320, 240], tight, atol=1.6)


def test_objects_stay_with_label_and_difficult_if_their_centre_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd_lightning.data.mosaic.draw_window", lambda *_, **__: np.array([0, 0, 0.5, 0.5]))
    centres = np.array([(0.51, 0.2), (0.49, 0.2), (0.2, 0.52), (0.3, 0.49)])
    boxes = np.hstack([centres - 0.1, centres + 0.1])
    sample = with_objects(FOUR[0][0], boxes, [1, 2, 3, 4], [False, True, True, False])

    _, joined = MOSAIC.join(np.random.default_rng(0), [sample] * 4)

    assert joined["labels"].tolist() == [2, 4] * 4
    assert joined["difficult"].tolist() == [True, False] * 4


def test_images_without_boxes_join() -> None:
    empty = with_objects(np.zeros((60, 80, 3), np.uint8), [], [], [])
    _, joined = MOSAIC.join(np.random.default_rng(0), [empty] * 4)
    assert joined["boxes"].shape == (0, 4)
    assert joined["labels"].shape == joined["difficult"].shape == (0,)


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (1, 1), (2, 2)])
def test_the_smallest_images_join(size: tuple[int, int]) -> None:
    samples = [with_objects(np.full((*size, 3), 9, np.uint8), [[0.1, 0.1, 0.9, 0.9]], [1], [False])] * 4
    for seed in range(20):
        image, target = MOSAIC.join(np.random.default_rng(seed), samples)
        assert image.shape == (*size, 3)
        assert (image == 9).all()
        assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()


@pytest.mark.parametrize(("shown_px", "scale"), [((60, 40), 0.01), ((180, 240), 0.5), ((500, 20), 1.0)])
def test_a_window_lies_in_the_image_and_keeps_the_aspect_ratio(shown_px: tuple[int, int], scale: float) -> None:
    window = draw_window(np.random.default_rng(0), (240, 320), shown_px, scale=scale)

    assert ((window >= -1e-9) & (window <= 1 + 1e-9)).all()
    width_px, height_px = (window[2:] - window[:2]) * [320, 240]
    assert width_px / height_px == pytest.approx(shown_px[1] / shown_px[0])
    assert shown_px[0] / height_px >= scale - 1e-9


def make_dataset(folder: Path, *, seed: int = 0, mosaic: Mosaic | None = None) -> DetectionDataset:
    paths = [folder / f"{index}.png" for index in range(12)]
    for index, path in enumerate(paths):
        Image.fromarray(np.where(FOUR[0][0] == 0, index, FOUR[0][0])).save(path)
    records = [annotation(path, size_px=(240, 320), boxes=[[60, 40, 220, 160]]) for path in paths]
    dataset = DetectionDataset(annotations=records, class_names=["a"], seed=seed)
    dataset.mosaic = mosaic
    return dataset


def test_a_sample_hangs_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    first, again, other = (make_dataset(tmp_path, seed=seed, mosaic=MOSAIC) for seed in (0, 0, 1))
    image, target = first[3, 5]
    assert torch.equal(image, again[3, 5][0])
    assert torch.equal(target["boxes"], again[3, 5][1]["boxes"])
    assert not any(torch.equal(image, changed) for changed in (first[4, 5][0], first[3, 7][0], other[3, 5][0]))


def test_it_acts_in_the_first_epochs_only(tmp_path: Path) -> None:
    dataset, plain = (make_dataset(tmp_path, mosaic=of) for of in (Mosaic(probability=1.0, epochs=2), None))
    keys = [SampleKey(epoch, 0) for epoch in (0, 1, 2, 30)]
    assert [torch.equal(dataset[key][0], plain[key][0]) for key in keys] == [False, False, True, True]


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_so_many_samples_are_joined(probability: float) -> None:
    mosaic = Mosaic(probability=probability)
    draws = [mosaic.partners(np.random.default_rng([0, i]), 10) for i in range(2000)]

    assert np.mean([draw is not None for draw in draws]) == pytest.approx(probability, abs=0.03)
    assert all(len(draw) == 3 and set(draw) <= set(range(10)) for draw in draws if draw is not None)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"probability": 1.5}, "mosaic_probability"),
        ({"probability": 0.5, "epochs": -1}, "mosaic_epochs"),
        ({"probability": 0.5, "min_scale": 0}, "min_scale"),
    ],
)
def test_bad_settings_are_named(settings: dict, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Mosaic(**settings)
