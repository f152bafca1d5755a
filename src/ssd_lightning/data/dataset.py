"""Turn annotated images into training and evaluation samples. This code does not depend on the annotation format."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssd_lightning.data.annotation_checks import BOX_PROBLEMS, BoxNotation, Problem, ProblemKind
from ssd_lightning.data.annotations import AnnotationTable, ImageAnnotation
from ssd_lightning.data.cache import ImageCache
from ssd_lightning.data.colour import to_planes
from ssd_lightning.data.images import ImageSizeError, choose_reduction, read_image, reduced_size_px
from ssd_lightning.data.mosaic import Mosaic
from ssd_lightning.data.resize import WHOLE, Resize
from ssd_lightning.data.sampler import SampleKey
from ssd_lightning.data.split_names import SPLIT_TITLES
from ssd_lightning.errors import DataError
from ssd_lightning.types import Target


class Transform(Protocol):
    """Turns an image and its boxes into a training or test sample."""

    def __call__(
        self, image: np.ndarray, boxes_xyxy: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Transform one sample.

        Args:
            image: uint8 `[H, W, 3]`, RGB.
            boxes_xyxy: float32 `[N, 4]`, normalised, valid.
            seed: seed of the sample; the same seed gives the same result in any process.

        Returns:
            The new image uint8 `[H', W', 3]`, the remaining boxes, float32 `[N', 4]` normalised, and
            their indices into the given boxes, int64 `[N']`.
        """
        ...


@runtime_checkable
class ScalableTransform(Transform, Protocol):
    """A transform that multi-scale training can use."""

    def at_size(self, image_size: tuple[int, int]) -> Transform:
        """Return the same transform for another output size (height, width)."""
        ...


def sample_seed(seed: int, epoch: int, index: int, copy: int = 0) -> int:
    """Return the seed of a sample in an epoch. It does not depend on the worker or rank.

    Copies of a sample within an epoch have different seeds. The 2 in them makes them differ from the seeds of mosaics.
    """
    return int(np.random.SeedSequence([seed, epoch, index, *([2, copy] if copy else [])]).generate_state(1)[0])


class DetectionDataset(Dataset[tuple[Tensor, Target]]):
    """Annotated images as (image uint8 `[3, H, W]` RGB, `Target`).

    Args:
        annotations: annotations of the images, in a fixed order.
        class_names: names of the classes 1..C.
        transform: transform of each sample; None returns the image unchanged.
        seed: seed of the data set, from which the seeds of all samples are derived.
        dropped: images and objects that could not be used, and were skipped while reading the annotations.
        num_skipped: number of crowds and difficult objects that were skipped because a setting says so.

    Attributes:
        dropped: all images and objects that could not be used.
        mosaic: joins samples with others before the transform; None (the default) disables it.
        least_size_px: images of at least twice this (height, width) are read at 1/2, 1/4 or 1/8 of their size, but not
            smaller than this. None (the default) reads them at full size.
        cache: keeps images after the first read; None (the default) disables it. Its images have the numbers of
            `annotations` and the sizes of `sizes_as_read_px`.

    An index reads a sample as in epoch 0, so that a plain `DataLoader(dataset, shuffle=True)` gives an image the same
    augmentation in every epoch. `EpochSampler` as the loader's `sampler` gives it a new one.

    Raises:
        DataError: an annotation in a plain sequence has a box outside its image, or a label outside 1..C; or, when a
            sample is read, its image is broken.
    """

    def __init__(
        self,
        *,
        annotations: AnnotationTable | Sequence[ImageAnnotation],
        class_names: Sequence[str],
        transform: Transform | None = None,
        seed: int = 0,
        dropped: Sequence[Problem] = (),
        num_skipped: int = 0,
    ) -> None:
        if not isinstance(annotations, AnnotationTable):
            annotations = AnnotationTable.of(annotations)
            check_objects(annotations, len(class_names))
        self.annotations = annotations
        self.class_names = tuple(class_names)
        self.transform = transform
        self.seed = seed
        self.mosaic: Mosaic | None = None
        self.least_size_px: tuple[int, int] | None = None
        self.cache: ImageCache | None = None
        self.dropped = list(dropped)
        self.num_skipped = num_skipped

    @classmethod
    def from_records(
        cls, records: Iterable[Mapping[str, Any]], *, root: str | Path = ".", **settings: Any
    ) -> "DetectionDataset":
        """Make a data set from Python objects, with all checks of the readers.

        Args:
            records: one mapping for each image, see `formats.Records`.
            root: folder where relative paths of images start.
            settings: `on_error`, and the other arguments of `DatasetOpener.__call__`.

        Raises:
            DataError: an image or object cannot be used.
        """
        from ssd_lightning.data.formats import Records
        from ssd_lightning.data.reading import DatasetOpener  # builds on this module

        opener = DatasetOpener(format=Records(all=records), on_error=settings.pop("on_error", "raise"))
        return opener(splits=[{"root": str(root), "split": "all"}], **settings)

    def __len__(self) -> int:
        return len(self.annotations)

    @property
    def skipped(self) -> str:
        """A sentence with the number of skipped crowds and difficult objects; empty if there are none."""
        if not self.num_skipped:
            return ""
        return f"{self.num_skipped} crowds or difficult objects are skipped; data.train_difficult=true keeps them"

    @property
    def sizes_as_read_px(self) -> list[tuple[int, int]]:
        """(height, width) of every image as read, possibly reduced."""
        sizes = ((height, width) for height, width in self.annotations.sizes_px.tolist())
        return [reduced_size_px(size_px, self._reduction(size_px)) for size_px in sizes]

    def __getitem__(self, key: int | SampleKey) -> tuple[Tensor, Target]:
        """Read one sample. The key is an index or a key of `EpochSampler`."""
        epoch, index, copy, image_size = (
            SampleKey(*key) if isinstance(key, tuple) else SampleKey(0, operator.index(key))
        )
        index = range(len(self))[index]  # supports dataset[-1], while seeds stay non-negative
        image, target = self._read(epoch, index, copy)
        read_size_px = (image.shape[0], image.shape[1])
        transform = self.transform
        if image_size is not None:
            assert isinstance(transform, ScalableTransform)
            transform = transform.at_size(image_size)
        if transform is not None:
            image, boxes, kept = transform(image, target["boxes"].numpy(), sample_seed(self.seed, epoch, index, copy))
            target["boxes"] = torch.from_numpy(np.ascontiguousarray(boxes, dtype=np.float32)).reshape(-1, 4)
            target["labels"], target["difficult"] = target["labels"][kept], target["difficult"][kept]
        if isinstance(transform, Resize) and (placement := transform.placement(read_size_px)) != WHOLE:
            target["placement"] = placement
        return torch.from_numpy(to_planes(image)), target

    def _read(self, epoch: int, index: int, copy: int) -> tuple[np.ndarray, Target]:
        if self.mosaic is not None and self.mosaic.acts_in(epoch):
            # The mosaic has its own random stream, separate from the transform's.
            rng = np.random.default_rng([self.seed, epoch, index, 1, *([copy] if copy else [])])
            partners = self.mosaic.partners(rng, len(self))
            if partners is not None:
                return self.mosaic.join(rng, [self._read_alone(i) for i in (index, *partners)])
        return self._read_alone(index)

    def _read_alone(self, index: int) -> tuple[np.ndarray, Target]:
        record = self.annotations[index]
        height, width = record.size_px
        boxes = record.boxes_xyxy_px / np.array([width, height, width, height], dtype=np.float32)
        read = partial(read_image, record.image_path, record.size_px, reduction=self._reduction(record.size_px))
        image = read() if self.cache is None else self.cache.get(index, read)
        return image, Target(
            boxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(record.labels),
            difficult=torch.from_numpy(record.difficult),
            image_id=record.image_id,
            size_px=record.size_px,
        )

    def _reduction(self, size_px: tuple[int, int]) -> int:
        return 1 if self.least_size_px is None else choose_reduction(size_px, self.least_size_px)

    def drop_unreadable(self) -> None:
        """Read all images once, and drop those that cannot be read."""

        def problem_with(annotation: ImageAnnotation) -> Problem | None:
            try:
                read_image(annotation.image_path, annotation.size_px)
            except DataError as error:
                return image_problem(annotation, error)
            return None

        with ThreadPoolExecutor() as pool:
            problems = list(pool.map(problem_with, self.annotations))
        self.dropped += [problem for problem in problems if problem]
        self.annotations = self.annotations.select(np.array([problem is None for problem in problems], bool))


def image_problem(annotation: ImageAnnotation, error: DataError) -> Problem:
    """Convert the error of reading an image to a problem."""
    path = str(annotation.image_path)
    kind: ProblemKind = "image_size" if isinstance(error, ImageSizeError) else "image"
    return Problem(file=path, kind=kind, text=str(error).removeprefix(f"{path}: "), image_id=annotation.image_id)


def check_objects(annotations: AnnotationTable, num_classes: int) -> None:
    """Raise `DataError` if a box has no area or is not inside of its image, or a label is outside 1..C."""
    objects = annotations.objects()
    numbers, sizes_px = objects.boxes_xyxy_px.astype(np.float64), annotations.sizes_px[objects.image]
    is_finite = np.isfinite(numbers).all(1)
    kinds = np.where(is_finite, BoxNotation().check(np.nan_to_num(numbers), sizes_px).kinds, 0)
    is_unknown = (objects.labels < 1) | (objects.labels > num_classes)
    for row in np.flatnonzero((kinds > 0) | is_unknown | ~is_finite).tolist():
        image = annotations[int(objects.image[row])]
        if is_unknown[row]:
            reason = f"has the label {objects.labels[row]}, which is outside 1..{num_classes}"
        elif kind := BOX_PROBLEMS[kinds[row]]:
            reason = BoxNotation().describe(kind, numbers[row], image.size_px)
        else:
            reason = f"has the box {numbers[row].tolist()}, which is not finite"
        raise DataError(f"image '{image.image_id}': an object {reason}")


def require_objects(dataset: DetectionDataset, split: str) -> None:
    """Raise `DataError` if a split has no object."""
    if not dataset.annotations.counts.any():
        first = f"; {len(dataset.dropped)} were skipped, the first: {dataset.dropped[0]}" if dataset.dropped else ""
        skipped = f"; {dataset.skipped}" if dataset.skipped else ""
        raise DataError(f"the {len(dataset)} {SPLIT_TITLES[split]} images have no objects{first}{skipped}")


def collate(samples: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
    """Stack images to `[B, 3, H, W]`. Targets stay a list, because the number of boxes differs between images."""
    images, targets = zip(*samples, strict=True)
    return torch.stack(images), list(targets)
