"""State of the detection metrics between batches, and its synchronisation across ranks."""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from ssd_lightning.metrics.average_precision import DetectionTable, ObjectTable
from ssd_lightning.ops.image_columns import check_columns
from ssd_lightning.types import Detections, Target

# Columns of the states. Labels and flags are exact as float32; a hash of the image's name would not be.
_LAYOUT: dict[str, tuple[int, torch.dtype]] = {
    "images": (5, torch.int64),  # hash of image_id, height, width, number of detections, number of objects
    "detections": (6, torch.float32),  # x1, y1, x2, y2, score, label
    "objects": (6, torch.float32),  # x1, y1, x2, y2, label, difficult
}


class Evaluation(NamedTuple):
    """All images seen by all ranks, each once, in an order of their names; those without names as they were added."""

    sizes_px: Tensor
    """int64 `[I, 2]`: (height, width) of each image."""
    detections: DetectionTable
    """Normalised boxes, sorted by image."""
    objects: ObjectTable
    """Normalised boxes, sorted by image."""


class DetectionMetric(Metric):
    """Base class of metrics over (detections, targets): stores every image and returns them without duplicates.

    The states are tables of fixed width, so ranks may make any number of updates, including none. If an image was seen
    twice (padded sampler), the first one counts. The result does not depend on the batches, nor on which rank saw which
    image.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    images: list[Tensor] | Tensor
    detections: list[Tensor] | Tensor
    objects: list[Tensor] | Tensor

    def __init__(self) -> None:
        # A rank without an update since its last compute() would use its cache while the others wait.
        super().__init__(compute_with_cache=False)
        self._num_unnamed = 0
        for name in _LAYOUT:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    @property
    def update_called(self) -> bool:
        """Always True, so that compute() does not warn. An evaluation without images is valid."""
        return True

    def update(self, preds: Sequence[Detections], targets: Sequence[Target]) -> None:
        """Add a batch.

        Args:
            preds: detections, one entry per image.
            targets: ground truth of the same images in the same order. Without `difficult`, all objects count. Images
                without `image_id` are all different.

        Raises:
            DataError: a column has a wrong shape, or a value that `check` refuses.
            ValueError: `preds` and `targets` have different lengths, or the names of an image differ.
        """
        if len(preds) != len(targets):
            raise ValueError(f"got detections of {len(preds)} images but targets of {len(targets)}")
        self.check(preds, targets)
        truth = [
            target if "difficult" in target else {**target, "difficult": torch.zeros_like(target["labels"])}
            for target in targets
        ]
        check_columns(truth, "difficult", targets=targets, what="target")
        images = []
        for pred, target in zip(preds, targets, strict=True):
            image_id = target.get("image_id", pred.get("image_id"))
            key = self._new_key() if image_id is None else image_key(image_id)
            if str(other := pred.get("image_id", image_id)) != str(image_id):
                raise ValueError(f"got detections of image '{other}' for the target of '{image_id}'")
            size_px = target.get("size_px", (0, 0))
            images.append([key, *size_px, len(pred["labels"]), len(target["labels"])])
        if not images:
            return
        tables = torch.tensor(images), _columns(preds, "scores", "labels"), _columns(truth, "labels", "difficult")
        for (name, (_, dtype)), rows in zip(_LAYOUT.items(), tables, strict=True):
            getattr(self, name).append(rows.detach().to(self.device, dtype))

    def check(self, preds: Sequence[Detections], targets: Sequence[Target]) -> None:
        """Check the columns of a batch, which are joined for all of its images. Raises `DataError`."""
        check_columns(preds, "scores", "labels", targets=targets, what="detections")
        check_columns(targets, "labels", targets=targets, what="target")

    def evaluation(self) -> Evaluation:
        """Collect the images in the states, on the CPU: the metrics need float64, which some accelerators lack."""
        images, detections, objects = (self._table(name).cpu() for name in _LAYOUT)
        hashes, order = images[:, 0].sort(stable=True)
        kept = order[hashes.diff(prepend=hashes[:1] - 1) != 0]  # first occurrence of each name
        new_index = torch.full_like(order, -1)
        new_index[kept] = torch.arange(len(kept))
        detection_image, detections = _reorder(detections, new_index.repeat_interleave(images[:, 3]))
        object_image, objects = _reorder(objects, new_index.repeat_interleave(images[:, 4]))
        return Evaluation(
            images[kept, 1:3],
            DetectionTable(detection_image, detections[:, :4], detections[:, 4], detections[:, 5].long()),
            ObjectTable(object_image, objects[:, :4], objects[:, 4].long(), objects[:, 5].bool()),
        )

    def seen_by_all(self) -> tuple[Tensor, Evaluation]:
        """Collect the images of all ranks, at any time before `reset`. All ranks must call this.

        Returns:
            The `image_key` of each image, int64 `[I]`, and all images in this order.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            return self._table("images").cpu()[:, 0].unique(), self.evaluation()

    def _new_key(self) -> int:
        """Return a key for an image without a name, which no other image has.

        These keys follow the order of the images, so that the same images give the same result again. The random last
        digits tell them from those of metrics that are merged with this one.
        """
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        self._num_unnamed += 1
        return (rank << 48) + (self._num_unnamed << 24) + secrets.randbits(24)

    def _table(self, name: str) -> Tensor:
        """Join a state to one `[rows, width]` tensor with its own dtype, even if it is empty."""
        width, dtype = _LAYOUT[name]
        state = getattr(self, name)
        parts = [state] if isinstance(state, Tensor) else state
        return torch.cat([torch.empty(0, width, dtype=dtype, device=self.device), *parts])

    def sync(self, *arguments: Any, **settings: Any) -> None:
        """Collect the states of all ranks, where there are several."""
        # torchmetrics replaces an empty list by a float vector, which does not fit the other ranks' tables.
        for name in _LAYOUT:
            setattr(self, name, [self._table(name)])
        super().sync(*arguments, **settings)


def image_key(image_id: str | int) -> int:
    """Return a 64-bit hash of a name. Unlike that of `hash`, it is the same in every process."""
    digest = hashlib.blake2b(str(image_id).encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _columns(images: Sequence[Mapping[str, Any]], *names: str) -> Tensor:
    """Join the boxes and the named columns of a batch. On a GPU, one tensor per image would need more kernels."""
    boxes = torch.cat([image["boxes"].reshape(-1, 4) for image in images])
    columns = [torch.cat([image[name] for image in images]) for name in names]
    return torch.cat([boxes.float(), *(column.float()[:, None] for column in columns)], dim=1)


def _reorder(rows: Tensor, new_image: Tensor) -> tuple[Tensor, Tensor]:
    """Sort rows by the new index of their image, and drop the rows of dropped images (-1)."""
    order = new_image.argsort(stable=True)
    order = order[new_image[order] >= 0]
    return new_image[order], rows[order]
