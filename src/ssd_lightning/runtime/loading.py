"""Which exported file is run by what."""

from pathlib import Path

import torch

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.runtime.network import ExportedNetwork
from ssd_lightning.runtime.onnx_network import OnnxNetwork
from ssd_lightning.runtime.torchscript_network import TorchScriptNetwork, is_torchscript


def load_exported(path: Path, device: torch.device | str, precision: str) -> ExportedNetwork | None:
    """Open an exported network; None for a file that holds weights.

    Args:
        path: the file; `.onnx` and `.torchscript` say what it is, and `.pt` is looked into.
        device: where to compute.
        precision: that is asked for.

    Raises:
        ConfigurationError: another precision than the file has.
        WeightsError: the file cannot be used.
    """
    kind = OnnxNetwork if path.suffix == ".onnx" else TorchScriptNetwork if is_torchscript(path) else None
    if kind is None:
        return None
    if precision != "float32":
        raise ConfigurationError(f"precision is '{precision}', but {path} computes in the precision it was exported in")
    return kind(path, device)
