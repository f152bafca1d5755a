"""Matches between priors and objects of training batches."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.analysis.matched_priors import by_object, level_of_priors, matched_objects
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.models.ssd import SSD
from ssd_lightning.types import Target
from ssd_lightning.visualization.draw_matches import draw_window
from ssd_lightning.visualization.outlines import fitting_size
from ssd_lightning.visualization.sheet import Panel, lay_out
from ssd_lightning.visualization.training_plots import LevelCount

MOST_IMAGES = 16
IMAGE_PX = 360
AT_A_TIME = 16
"""Number of images that are matched at once, which limits the host's memory."""


@torch.no_grad()
def draw_batch(images: Tensor, targets: Sequence[Target], *, net: SSD, loss: MultiBoxLoss) -> np.ndarray:
    """Draw the first images of a batch with their objects (solid) and matched priors: uint8 `[H, W, 3]`.

    The images are uint8 `[B, 3, H, W]`, the network's input, on any device.
    """
    targets = targets[:MOST_IMAGES]
    pixels = images[:MOST_IMAGES].cpu().permute(0, 2, 3, 1).clamp(0, 255).to(torch.uint8).numpy()
    priors, panels = net.priors_cxcywh.cpu(), []
    matches = by_object(loss.matcher(targets, priors), targets, priors)
    for image, target, found in zip(pixels, targets, matches, strict=True):
        threshold = loss.matcher.iou_threshold
        objects = matched_objects(found, target, priors_cxcywh=priors, levels=net.levels, iou_threshold=threshold)
        panels.append(Panel(draw_window(image, objects, size=fitting_size(image, IMAGE_PX, IMAGE_PX))))
    title = "first training batch: objects solid, matched priors dashed; ! is a forced match, or none"
    return lay_out(panels, columns=4, title=title)


@torch.no_grad()
def count_levels(targets: Sequence[Target], *, net: SSD, loss: MultiBoxLoss) -> list[LevelCount]:
    """Count the matched priors of each feature map, for targets of training images on the host."""
    priors = net.priors_cxcywh.cpu()
    level_of_prior = level_of_priors(net.levels)
    matched = torch.zeros(len(priors), dtype=torch.int64)
    for start in range(0, len(targets), AT_A_TIME):
        matched += (loss.matcher(targets[start : start + AT_A_TIME], priors).labels > 0).sum(dim=0)
    counts = np.bincount(level_of_prior, weights=matched.numpy(), minlength=len(net.levels) + 1)
    totals = np.bincount(level_of_prior, minlength=len(net.levels) + 1) * len(targets)
    return [
        LevelCount(matched=int(counts[place]), priors=int(totals[place]), grid=level.grid)
        for place, level in enumerate(net.levels, start=1)
    ]
