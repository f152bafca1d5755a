"""The multibox loss and the three objects that it owns: a matcher, a class loss and a box loss."""

from ssd_lightning.losses.box_losses import BoxLoss, IoULoss, SmoothL1Loss
from ssd_lightning.losses.class_losses import ClassLoss, CrossEntropy, FocalLoss, HardNegativeCrossEntropy
from ssd_lightning.losses.matchers import ArgmaxMatcher, BipartiteMatcher, Matcher
from ssd_lightning.losses.multibox import MultiBoxLoss, Normalizer

__all__ = [
    "ArgmaxMatcher",
    "BipartiteMatcher",
    "BoxLoss",
    "ClassLoss",
    "CrossEntropy",
    "FocalLoss",
    "HardNegativeCrossEntropy",
    "IoULoss",
    "Matcher",
    "MultiBoxLoss",
    "Normalizer",
    "SmoothL1Loss",
]
