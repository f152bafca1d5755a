"""Settings that a run chooses from its training boxes: priors, and the bounds of the augmentation."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from ssd_lightning.analysis.objects import boxes_in_input
from ssd_lightning.analysis.prior_choice import PriorChoice, choose_priors
from ssd_lightning.analysis.scale_bounds import choose_scale_bounds
from ssd_lightning.assembly import make_net
from ssd_lightning.checks import require_bool
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.resize import ResizeMode
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.checkpoints import find_checkpoint
from ssd_lightning.models.config import to_config
from ssd_lightning.models.files import read_checkpoint, stored_levels
from ssd_lightning.models.ssd import SSD
from ssd_lightning.models.weights import levels_for_weights
from ssd_lightning.ops.priors import as_height_width
from ssd_lightning.training import DetectionDataModule

log = logging.getLogger(__name__)


def fit_priors(net: SSD, dataset: DetectionDataset, resize: ResizeMode) -> PriorChoice:
    """Fit the priors of a network to the boxes of a split, see `choose_priors`."""
    boxes = boxes_in_input(dataset, resize, net.image_size)
    return choose_priors(boxes, net.levels, net.image_size, net.clip_priors)


def resolve_priors(config: DictConfig, data: DetectionDataModule, checkpoint: Path | None) -> dict[str, Any] | None:
    """Replace `priors.fit` by levels: fitted to the training boxes, or those of the loaded weights.

    Building from the configuration afterwards needs no data and no second fit. Every rank does the same.

    Returns:
        The choice, for the record; None if nothing was fitted.

    Raises:
        UserError: a setting, the training split or the checkpoint is not usable.
    """
    require_bool("priors.fit", config.priors.fit)
    if not config.priors.fit:
        return None
    if config.get("ablated"):
        raise ConfigurationError("this ablation= removes published priors; do not combine it with priors.fit=true")
    say, choice = rank_zero_only(log.info), None
    levels: Any
    published: Any = OmegaConf.to_container(config.model.levels, resolve=True)
    if checkpoint is not None:
        levels = stored_levels(read_checkpoint(checkpoint, mapped=True), checkpoint)
        say("priors=auto: the priors are those of %s", checkpoint)
    elif config.init_from and (levels := levels_for_weights(find_checkpoint(Path(config.init_from)), published)):
        say("priors=auto: nothing is fitted, since the box heads of %s are trained for their priors", config.init_from)
    else:
        # Runs on the meta device, and does not advance the random generator that initialises the network.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            net = make_net(config, len(data.class_names), pretrained=False)
        choice = fit_priors(net, data.dataset("train"), data.resize)
        levels = to_config(choice.levels)
        for line in choice.describe():
            say("%s", line)
        if warning := choice.warning():
            rank_zero_only(log.warning)("%s", warning)
    OmegaConf.update(config, "model.levels", levels, merge=False)
    config.priors.fit = False
    return None if choice is None else choice.record()


def resolve_augmentation(config: DictConfig, data: DetectionDataModule) -> None:
    """Replace `auto_augmentation` by numbers, see `bound_augmentation`, and rebuild the augmentation of the data."""
    if config.auto_augmentation:
        image_size = as_height_width(config.image_size)
        bound_augmentation(config, boxes_in_input(data.dataset("train"), data.resize, image_size))
        data.use_augmentation(instantiate(config.augmentation, _convert_="all"))


def bound_augmentation(config: DictConfig, boxes_xyxy: np.ndarray) -> None:
    """Replace `auto_augmentation` by numbers: bounds of expansion and crops that suit the training boxes `[N, 4]`.

    The boxes are normalised to the resized input.

    Raises:
        ConfigurationError: the augmentation has no such bounds.
    """
    if not {"max_expand_ratio", "min_crop_scale"} <= set(config.augmentation):
        raise ConfigurationError("auto_augmentation=true bounds expansion and crops: it goes with augmentation=paper")
    settings = config.augmentation
    bounds = choose_scale_bounds(
        boxes_xyxy,
        as_height_width(config.image_size),
        max_expand_ratio=settings.max_expand_ratio if settings.expand else 1.0,
        min_crop_scale=settings.min_crop_scale if settings.crop else None,
    )
    settings.max_expand_ratio = bounds.max_expand_ratio
    settings.min_crop_scale = bounds.min_crop_scale or settings.min_crop_scale
    config.auto_augmentation = False
    rank_zero_only(log.info)("%s", bounds.describe())
