"""Single-shot detectors as reproducible PyTorch Lightning experiments.

The names below are the public Python API. Each is imported when it is first used: commands start without torch.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssd_lightning.inference.detector import Detector
    from ssd_lightning.losses import MultiBoxLoss
    from ssd_lightning.metrics.voc import VOCMeanAveragePrecision
    from ssd_lightning.models import SSD, PostProcess

try:
    __version__ = version("ssd-lightning")
except PackageNotFoundError:  # the sources on PYTHONPATH, not installed
    __version__ = "0"

__all__ = ["SSD", "Detector", "MultiBoxLoss", "PostProcess", "VOCMeanAveragePrecision", "__version__"]

_MODULES = {
    "Detector": "ssd_lightning.inference.detector",
    "MultiBoxLoss": "ssd_lightning.losses",
    "PostProcess": "ssd_lightning.models",
    "SSD": "ssd_lightning.models",
    "VOCMeanAveragePrecision": "ssd_lightning.metrics.voc",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)
