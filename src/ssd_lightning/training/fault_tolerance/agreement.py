"""Checks before the first step that all ranks train the same thing."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import distributed

import ssd_lightning
from ssd_lightning.data.dataset import ImageAnnotation
from ssd_lightning.digest import config_digest, differences
from ssd_lightning.errors import ConfigurationError, DataError

MOST_KEYS = 8
"""Number of differences that a message lists."""


class Agreement(pl.Callback):
    """Compares settings, software and training images of all ranks, and stops all ranks if they differ.

    DDP does not notice such differences: it copies the weights of rank 0 to the others and averages all gradients.

    Args:
        config: the resolved configuration, as plain containers.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Compare the ranks.

        Raises:
            ConfigurationError: settings or versions differ.
            DataError: the images or their boxes differ.
        """
        if stage != "fit" or trainer.world_size == 1:
            return
        require_same_settings(self._config)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if datamodule is not None:
            require_same_images(datamodule.dataset("train").records)


def require_same_settings(config: Mapping[str, Any]) -> None:
    """Compare settings and software over all ranks. A collective call.

    Raises:
        ConfigurationError: a rank differs from rank 0. Raised on all ranks.
    """
    facts = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ssd_lightning": ssd_lightning.__version__,
    }
    digests = gather((config_digest(config), facts))
    if len({str(digest) for digest in digests}) == 1:
        return
    statements = gather({**config, "versions": facts})
    odd = {rank: differences(statements[0], other, between="and") for rank, other in enumerate(statements)}
    raise ConfigurationError(disagreement("settings", odd))


def require_same_images(records: Sequence[ImageAnnotation]) -> None:
    """Compare names, sizes, boxes and classes of the training images over all ranks. A collective call.

    Raises:
        DataError: a rank differs from rank 0. Raised on all ranks.
    """
    mine = [f"{record.image_id} {record_digest(record)}" for record in records]
    digests = gather(hashlib.blake2b("\n".join(mine).encode(), digest_size=16).hexdigest())
    if len(set(digests)) == 1:
        return
    lists = gather(mine)
    odd = {rank: _first_difference(lists[0], other) for rank, other in enumerate(lists)}
    raise DataError(disagreement("training images", odd))


def record_digest(record: ImageAnnotation) -> str:
    """Hash the annotation of an image, without its path."""
    known = hashlib.blake2b(repr(tuple(record.size_px)).encode(), digest_size=8)
    for values, kind in ((record.boxes_xyxy_px, "<f4"), (record.labels, "<i8"), (record.difficult, "<u1")):
        known.update(np.ascontiguousarray(values).astype(kind).tobytes())
    return known.hexdigest()


def disagreement(what: str, differences_by_rank: Mapping[int, Sequence[str]]) -> str:
    """Describe which ranks differ from rank 0, and how."""
    world_size = len(differences_by_rank)
    parts = []
    for rank, found in differences_by_rank.items():
        if found:
            more = f"; and {len(found) - MOST_KEYS} more" if len(found) > MOST_KEYS else ""
            parts.append(f"rank 0 and rank {rank} (of {world_size}) have {'; '.join(found[:MOST_KEYS])}{more}")
    return f"the ranks of this run have different {what}: {' | '.join(parts)}"


def _first_difference(first: Sequence[str], second: Sequence[str]) -> list[str]:
    if list(first) == list(second):
        return []
    found = [f"{len(first)} and {len(second)} images"] if len(first) != len(second) else []
    for one, two in zip(first, second, strict=False):
        if one != two:
            (name, _), (other, _) = one.rsplit(" ", 1), two.rsplit(" ", 1)
            found.append(f"{name} and {other}" if name != other else f"other boxes or another size of {name}")
            break
    return found


def gather(value: Any) -> list[Any]:
    """Collect a plain value from every rank, in rank order. A collective call."""
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
