"""Checks before the first step that all ranks train the same thing."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import distributed

import ssd_lightning
from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.data.fingerprint import table_fingerprint
from ssd_lightning.digest import differences
from ssd_lightning.errors import ConfigurationError, listed

MOST_KEYS = 8
"""Number of differences that a message lists."""


class RankConsistencyCheck(pl.Callback):
    """Compares settings, software and training images of all ranks, and stops all ranks if they differ.

    DDP does not notice such differences: it copies the weights of rank 0 to the others and averages all gradients.
    The configuration is given as plain containers.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Compare the ranks.

        Raises:
            ConfigurationError: they differ. Raised on all ranks.
        """
        if stage == "fit" and trainer.world_size > 1:
            data = trainer.datamodule.dataset("train")  # type: ignore[attr-defined]
            statements: list[Any] = [None] * trainer.world_size
            distributed.all_gather_object(statements, statement(self._config, data.annotations, data.class_names))
            require_same(statements)


def statement(config: Mapping[str, Any], annotations: AnnotationTable, class_names: Sequence[str]) -> dict[str, Any]:
    """State what a rank trains with: settings, versions, and a fingerprint of the training images without paths."""
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        # Without `.dev467+g5329066`: an editable installation keeps that of its first day.
        "ssd_lightning": ssd_lightning.__version__.partition(".dev")[0],
    }
    return {**config, "versions": versions, "training_images": table_fingerprint(annotations, class_names)}


def require_same(statements: Sequence[Mapping[str, Any]]) -> None:
    """Compare the statements of all ranks with that of rank 0.

    Raises:
        ConfigurationError: a rank differs.
    """
    odd = []
    for rank, other in enumerate(statements):
        if found := differences(statements[0], other, between="and"):
            shown = listed(found, MOST_KEYS, separator="; ")
            odd.append(f"rank 0 and rank {rank} (of {len(statements)}) have {shown}")
    if odd:
        raise ConfigurationError(f"the ranks of this run train different things: {' | '.join(odd)}")
