import json
import os
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.datasets import FunctionOpener, annotation, opener
from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.detection_data import spare_workers
from ssd_lightning.data.formats import COCO
from ssd_lightning.data.sampler import MultiScale, multiscale_sizes
from ssd_lightning.errors import ConfigurationError, DataError
from ssd_lightning.training import DetectionDataModule


def dataset(tmp_path: Path, class_names: tuple[str, ...] | None = None, **settings: Any) -> DetectionDataset:
    paths = [tmp_path / f"{index}.png" for index in range(10)]
    for index, path in enumerate(paths):
        Image.new("RGB", (30, 20), (index, 0, 0)).save(path)
    records = [annotation(path, size_px=(20, 30), boxes=[[2, 2, 12, 12]]) for path in paths]
    return DetectionDataset(annotations=records, class_names=class_names or ("thing",), **settings)


def data_module(tmp_path: Path, **settings: Any) -> DetectionDataModule:
    stages = {"train": {}, "val": {}, "test": {}}
    sizes = {"image_size": (16, 16), "batch_size": 2, "num_workers": 0}
    opener_of_all = FunctionOpener(make=partial(dataset, tmp_path))
    return DetectionDataModule(**{"dataset": opener_of_all, **stages, **sizes, **settings})


def names(loader: torch.utils.data.DataLoader) -> list[str]:
    return [target["image_id"] for _, targets in loader for target in targets]


def test_evaluation_keeps_the_order_and_the_last_small_batch(tmp_path: Path) -> None:
    loader = data_module(tmp_path, batch_size=3).test_dataloader()
    assert names(loader) == [str(index) for index in range(10)]


def test_training_drops_a_last_small_batch_but_never_the_only_one(tmp_path: Path) -> None:
    for batch_size, seen in ((4, 8), (64, 10)):
        assert len(names(data_module(tmp_path, batch_size=batch_size).train_dataloader())) == seen


@pytest.mark.parametrize("repeat_rare", [False, True])
def test_images_of_a_rare_class_come_again_in_an_epoch_and_are_augmented_anew(
    tmp_path: Path, repeat_rare: bool
) -> None:
    seeds: list[int] = []

    def augmentation(image: np.ndarray, boxes: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        seeds.append(seed)
        return image, boxes, np.arange(len(boxes))

    settings = {"class_names": ("thing", "rare"), "augmentation": augmentation, "batch_size": 1}
    module = data_module(tmp_path, repeat_rare=repeat_rare, repeat_threshold=0.9, **settings)
    opened = module.dataset("train")
    records = list(opened.annotations)
    records[4].labels[:] = 2  # in a tenth of the images: 3 times
    opened.annotations = AnnotationTable.of(records)
    loader = module.train_dataloader()
    assert len(loader) == (12 if repeat_rare else 10)
    counts = Counter(names(loader))
    assert counts == Counter({str(index): 1 for index in range(10)}) + Counter({"4": 2 * repeat_rare})
    assert len(set(seeds)) == counts.total()


def test_training_on_crowds_alone_names_their_number_and_what_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "train/a.png")
    crowds = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 9], "iscrowd": 1}] * 3
    images, categories = [{"id": 1, "file_name": "a.png"}], [{"id": 1, "name": "cat"}]
    content = {"images": images, "annotations": crowds, "categories": categories}
    (tmp_path / "train.json").write_text(json.dumps(content))
    splits = {"splits": [{"root": str(tmp_path), "split": "train"}]}
    settings: dict[str, Any] = {"dataset": opener(COCO), "val": None, "test": None}

    without = data_module(tmp_path, train={**splits, "keep_difficult": False}, **settings)
    with pytest.raises(DataError, match=r"1 training images have no objects; 3 crowds .* data\.train_difficult=true"):
        without.dataset("train")
    assert len(data_module(tmp_path, train=splits, **settings).dataset("train").annotations[0].labels) == 3


def test_without_validation(tmp_path: Path) -> None:
    module = data_module(tmp_path, val=None)
    assert module.val_dataloader() == []
    with pytest.raises(DataError, match="no val split"):
        module.dataset("val")


def test_a_detector_numbers_the_classes(tmp_path: Path) -> None:
    module = data_module(tmp_path, class_names=("thing",))
    module.use_class_names(("other", "thing"))
    assert module.class_names == ("other", "thing")
    with pytest.raises(DataError, match="'thing', which the detector does not know; it knows cat, dog"):
        data_module(tmp_path, class_names=("thing",)).use_class_names(("cat", "dog"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("batch_size", 0),
        ("eval_batch_size", True),
        ("num_workers", "many"),
        ("prefetch_factor", 0),
        ("reduced_decoding", None),
        ("repeat_rare", "yes"),
        ("repeat_threshold", 1.5),
    ],
)
def test_a_bad_setting_is_named_with_its_value(tmp_path: Path, setting: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"data\.{setting} is {value!r}; it must be "):
        data_module(tmp_path, **{setting: value})


@pytest.mark.parametrize(("cores", "ranks", "workers"), [(16, 1, 15), (16, 4, 3), (64, 1, 16), (1, 1, 1), (2, 4, 1)])
def test_spare_workers_leaves_a_core_for_each_rank(
    cores: int, ranks: int, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(cores), raising=False)
    assert spare_workers(ranks) == workers
    data = data_module(tmp_path, num_workers=None)
    data.trainer = SimpleNamespace(num_devices=ranks, world_size=1, accumulate_grad_batches=1)  # type: ignore[assignment]
    assert data.evaluation_loader("train").num_workers == workers
    data.trainer = None  # type: ignore[assignment]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert data.evaluation_loader("test").num_workers == workers


def test_multi_scale_batches_have_the_size_of_their_step(tmp_path: Path) -> None:
    module = data_module(tmp_path, image_size=(64, 64), multiscale=[32, 96])
    multiscale = MultiScale(multiscale_sizes([32, 96], (64, 64)), seed=0)
    loader = module.train_dataloader()
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        sizes = [tuple(images.shape[-2:]) for images, _ in loader]
        assert sizes == [multiscale.size_at(epoch, step) for step in range(5)]
    assert {tuple(images.shape[-2:]) for images, _ in module.val_dataloader()} == {(64, 64)}


def test_multi_scale_needs_samples_of_any_size(tmp_path: Path) -> None:
    def fixed(image, boxes, seed):
        return image, boxes, []

    with pytest.raises(ConfigurationError, match=r"data.multiscale=\[32, 96\]: function makes samples of one size"):
        data_module(tmp_path, multiscale=[32, 96], augmentation=fixed)
