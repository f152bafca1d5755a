"""Which weights a training starts from."""

import logging
from pathlib import Path

from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.checkpoints import find_checkpoint
from ssd_lightning.models import SSD
from ssd_lightning.models.key_mapping import NETWORKS
from ssd_lightning.models.weights import load_pretrained
from ssd_lightning.visualization.tables import print_weights

log = logging.getLogger(__name__)


def check_start(config: DictConfig, checkpoint: Path | None) -> None:
    """Check the starting point of a training before data are downloaded, generated or read.

    Args:
        config: configuration of the run.
        checkpoint: checkpoint to resume, if any.

    Raises:
        UserError: the file of `init_from` is missing, or `resume` also names a run; or frozen layers would stay random.
    """
    frozen = config.backbone.get("freeze") or config.backbone.get("freeze_norm")
    if frozen and not (config.backbone.get("weights") or config.init_from or checkpoint):
        raise ConfigurationError(
            "backbone.freeze and backbone.freeze_norm keep the weights that the backbone starts with, and these would "
            "be random: give backbone.weights= or init_from="
        )
    if config.init_from and config.resume not in (None, "auto"):
        raise ConfigurationError("resume= continues a run and init_from= starts one; give one of them, or resume=auto")
    if config.init_from and checkpoint is None:
        find_checkpoint(Path(config.init_from))


def describe_start(config: DictConfig, net: SSD, checkpoint: Path | None) -> str:
    """Describe in one line which weights a run starts from, and which of them are trained."""
    weights = config.backbone.get("weights")
    kind = type(net.extractor.backbone).__name__
    if checkpoint is not None:
        start = f"the weights of {checkpoint}"
    elif config.init_from:
        start = f"the weights of {config.init_from}"
    elif weights is None:
        start = "random weights (backbone.weights=null)" if "weights" in config.backbone else "random weights"
    elif Path(weights).is_file():
        start = f"the weights of {weights} in the backbone ({kind}), random ones elsewhere"
    else:
        start = f"the ImageNet weights {weights} in the backbone ({kind}), random ones elsewhere"
    total = sum(weight.numel() for weight in net.parameters())
    learning = sum(weight.numel() for weight in net.parameters() if weight.requires_grad)
    settings = {key: config.backbone.get(key) for key in ("freeze", "freeze_norm")}
    frozen = ", ".join(f"backbone.{key}={value}".lower() for key, value in settings.items() if value)
    why = f" ({frozen})" if frozen else ""
    return f"the network starts from {start}; {learning:,} of its {total:,} parameters learn{why}"


def load_init_from(net: SSD, config: DictConfig, class_names: tuple[str, ...]) -> None:
    """Load the weights of `init_from`, and log what was loaded.

    Raises:
        WeightsError: the weights cannot be read, or do not fit.
    """
    loaded = load_pretrained(
        net,
        find_checkpoint(Path(config.init_from)),
        class_names=class_names,
        # A normalisation given on the command line wins. Otherwise the one stored with the weights is used.
        keep_normalization=config.model.normalization is not None,
    )
    rank_zero_only(print_weights)(f"{config.init_from}: {loaded.origin.source}", loaded.kept, loaded.reinitialised)
    if loaded.other_priors:
        log.warning("%s: %s; boxes are wrong by that at first", config.init_from, loaded.other_priors)
    if loaded.origin.source in NETWORKS and not loaded.reinitialised:
        log.info("the class heads are kept: the file's %d classes have to be yours, in its order", net.num_classes)
