"""Matchers: objects that say what each prior should predict (SSD paper, section 2.2, "Matching strategy").

They hold the settings. The computation is in `ops.matching`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ssd_lightning.checks import require_number
from ssd_lightning.ops.matching import Assignment, argmax_assignment, bipartite_assignment, match_priors
from ssd_lightning.types import Target


class Matcher(Protocol):
    """Assigns the ground truth of B images to K priors."""

    @property
    def iou_threshold(self) -> float:
        """Minimum IoU of a match that is not forced."""

    def __call__(self, targets: Sequence[Target], priors_cxcywh: Tensor) -> Assignment:
        """Match B targets with priors `[K, 4]`, normalised."""


@dataclass(frozen=True)
class _ForcedMatcher:
    """A prior takes the box of highest IoU above a threshold. In addition, `force` gives each box its best prior."""

    iou_threshold: float = 0.5
    force: "ClassVar[staticmethod[[Tensor], Tensor]]"
    """Forced matches from overlaps `[B, N, K]`: int64 `[B, K]`, the index of a prior's box, or -1."""

    def __post_init__(self) -> None:
        require_number("loss.matcher.iou_threshold", self.iou_threshold, 0, 1, above_low=True)

    @torch.no_grad()
    def __call__(self, targets: Sequence[Target], priors_cxcywh: Tensor) -> Assignment:
        """Match B targets with priors `[K, 4]`, normalised."""
        return match_priors(targets, priors_cxcywh, iou_threshold=self.iou_threshold, force=self.force)


class BipartiteMatcher(_ForcedMatcher):
    """Each box gets its own prior, also below the threshold. Pairs of highest IoU come first (the paper's Caffe code).

    In addition, each prior takes the box of highest IoU if this IoU reaches the threshold.

    Args:
        iou_threshold: minimum IoU of a match that is not forced.

    Raises:
        ConfigurationError: the threshold is not in (0, 1].
    """

    force = staticmethod(bipartite_assignment)


class ArgmaxMatcher(_ForcedMatcher):
    """Each box gets its best prior, also below the threshold (ssd.pytorch, most ports).

    If two boxes have the same best prior, the later box gets it. In addition, each prior takes the box of highest IoU
    if this IoU reaches the threshold.

    Args:
        iou_threshold: minimum IoU of a match that is not forced.

    Raises:
        ConfigurationError: the threshold is not in (0, 1].
    """

    force = staticmethod(argmax_assignment)
