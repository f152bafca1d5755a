"""Loggers that need more than a class name."""

import logging
import netrc
import os
from typing import Any
from urllib.parse import urlparse

from pytorch_lightning.loggers import WandbLogger

log = logging.getLogger(__name__)


def wandb_logger(**settings: Any) -> WandbLogger:
    """Make a Weights & Biases logger; without an account it records offline and says so, and never asks.

    Args:
        **settings: of `pytorch_lightning.loggers.WandbLogger`; the tags of `WANDB_TAGS` are added to its own.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode is None and not settings.get("offline") and not has_wandb_account():
        log.warning(
            "wandb: no account on this machine, so the run is recorded offline; `wandb login` before the run, or "
            "`wandb sync` after it, brings it online"
        )
        settings["offline"] = True
    more = [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag]
    settings["tags"] = list(dict.fromkeys([*settings.get("tags", []), *more]))  # W&B itself takes one of the two
    return WandbLogger(**settings)


def has_wandb_account() -> bool:
    """Say whether W&B finds a key without asking: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
