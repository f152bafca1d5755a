"""What all annotation formats share: parts, seeds, samples, batches."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.datasets import annotation
from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.data.augmentation import SSDAugmentation
from ssd_lightning.data.dataset import DetectionDataset, sample_seed
from ssd_lightning.data.sampler import SampleKey
from ssd_lightning.errors import DataError


def make_record(
    folder: Path, name: str, boxes: Sequence[object] = ((10, 20, 50, 60),), size: tuple[int, int] = (80, 100)
) -> ImageAnnotation:
    path, labels = folder / f"{name}.png", np.arange(1, len(boxes) + 1)
    Image.new("RGB", (100, 80), (1, 2, 3)).save(path)
    return annotation(path, size_px=size, boxes=boxes, labels=labels, difficult=labels % 2 == 0)


class Recorder:
    """Keeps the boxes at odd places and remembers its seeds."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def __call__(self, image: np.ndarray, boxes_xyxy: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
        self.seeds.append(seed)
        kept = np.arange(len(boxes_xyxy))[1::2]
        return image[::2, ::2], boxes_xyxy[kept], kept


def test_every_sample_of_every_epoch_has_a_seed_of_its_own() -> None:
    keys = list(itertools.product((0, 1), range(20), range(100), (0, 1)))
    assert len({sample_seed(*key) for key in keys}) == len(keys)


def test_a_sample_is_normalised_and_typed_and_does_not_change_its_record(tmp_path: Path) -> None:
    record = make_record(tmp_path, "a")
    dataset = DetectionDataset(annotations=[record], class_names=["x"])

    image, target = dataset[0]

    assert (image.dtype, image.shape) == (torch.uint8, (3, 80, 100))
    assert image[:, 0, 0].tolist() == [1, 2, 3]
    torch.testing.assert_close(target["boxes"], torch.tensor([[0.1, 0.25, 0.5, 0.75]]))
    assert (target["labels"].dtype, target["difficult"].dtype) == (torch.int64, torch.bool)
    assert (target["image_id"], target["size_px"]) == ("a", (80, 100))
    for value in (target["boxes"], target["labels"], target["difficult"]):
        value.zero_()
    assert record.boxes_xyxy_px.tolist() == [[10, 20, 50, 60]]
    assert dataset[0][1]["labels"].tolist() == [1]


def test_labels_and_flags_follow_the_boxes_that_the_transform_keeps(tmp_path: Path) -> None:
    boxes = [(i, i, i + 10, i + 10) for i in range(5)]
    dataset = DetectionDataset(
        annotations=[make_record(tmp_path, "a", boxes)], class_names=list("vwxyz"), transform=Recorder()
    )

    image, target = dataset[0]

    assert image.shape == (3, 40, 50)
    assert target["labels"].tolist() == [2, 4]
    assert target["difficult"].tolist() == [True, True]
    torch.testing.assert_close(target["boxes"][0], torch.tensor([1 / 100, 1 / 80, 11 / 100, 11 / 80]))
    assert target["size_px"] == (80, 100)  # of the original, not of the sample


@pytest.mark.parametrize("transform", [None, Recorder()])
def test_no_objects(tmp_path: Path, transform: Recorder | None) -> None:
    dataset = DetectionDataset(annotations=[make_record(tmp_path, "a", ())], class_names=["x"], transform=transform)
    target = dataset[0][1]
    assert (target["boxes"].shape, target["boxes"].dtype) == ((0, 4), torch.float32)
    assert target["labels"].shape == target["difficult"].shape == (0,)


def test_the_key_gives_the_epoch(tmp_path: Path) -> None:
    transform = Recorder()
    records = [make_record(tmp_path, name) for name in "abc"]
    dataset = DetectionDataset(annotations=records, class_names=["x"], transform=transform, seed=9)

    for key in (2, SampleKey(0, 2), SampleKey(4, 2), -1, np.int64(2), torch.tensor(2)):
        dataset[key]

    assert transform.seeds == [sample_seed(9, epoch, 2) for epoch in (0, 0, 4, 0, 0, 0)]
    with pytest.raises(IndexError):
        dataset[3]
    with pytest.raises(TypeError, match="'str' object cannot be interpreted as an integer"):
        dataset["a"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0]}, "'a': an object has the label 0, which is outside 1..1"),
        ({"labels": [2]}, "'a': an object has the label 2, which is outside 1..1"),
        ({"boxes": [(10, 20, 500, 60)]}, "'a': an object reaches out of the image: xmax is 500 of 100 px"),
        ({"boxes": [(0.1, 0.2, 0.5, 0.6)]}, r"'a': an object has the box \(0.1, .* looks like fractions"),
        ({"boxes": [(10, 20, math.nan, 60)]}, "'a': an object has the box .* not finite"),
    ],
)
def test_annotations_that_no_reader_has_checked_are_checked(changes: dict, message: str) -> None:
    records = [annotation("a.png", size_px=(80, 100), **{"boxes": [(10, 20, 50, 60)], **changes})]
    with pytest.raises(DataError, match=message):
        DetectionDataset(annotations=records, class_names=["x"])


def test_a_broken_image_raises_when_it_is_read_or_is_dropped_at_the_start(tmp_path: Path) -> None:
    records = [make_record(tmp_path, name) for name in "abcd"]
    records[1].image_path.write_bytes(b"")
    records[3] = make_record(tmp_path, "d", size=(81, 100))

    dataset = DetectionDataset(annotations=records, class_names=["x"])
    with pytest.raises(DataError, match=r"b\.png: .*empty"):
        dataset[1]
    with pytest.raises(DataError, match=r"d\.png: .* annotation says 100 x 81"):
        dataset[3]

    dataset.drop_unreadable()
    assert [record.image_id for record in dataset.annotations] == ["a", "c"]
    assert [(problem.file, problem.kind) for problem in dataset.dropped] == [
        (str(records[1].image_path), "image"),
        (str(records[3].image_path), "image_size"),
    ]


def test_records_of_python_are_a_data_set(tmp_path: Path) -> None:
    make_record(tmp_path, "a")
    record = {"image": "a.png", "boxes": [[10, 20, 50, 60], [0, 0, 200, 9]], "labels": ["cat", "dog"]}
    with pytest.raises(DataError, match=r"record 1: object 2 'dog' reaches out of the image"):
        DetectionDataset.from_records([record], root=tmp_path)
    dataset = DetectionDataset.from_records([record], root=tmp_path, on_error="clip", class_names=["dog", "cat"])
    assert dataset.annotations[0].labels.tolist() == [2, 1]
    assert dataset.annotations[0].boxes_xyxy_px.tolist() == [[10, 20, 50, 60], [0, 0, 100, 9]]


def test_workers_give_the_same_samples(tmp_path: Path) -> None:
    records = [make_record(tmp_path, name) for name in "abcd"]
    dataset = DetectionDataset(annotations=records, class_names=["x"], transform=SSDAugmentation(image_size=16))
    keys = [SampleKey(epoch, index) for epoch in range(2) for index in range(4)]

    alone = [dataset[key][0].numpy().tobytes() for key in keys]
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, sampler=keys, num_workers=1)
    assert [image.numpy().tobytes() for image, _ in loader] == alone
    assert len(set(alone)) > len(keys) // 2
