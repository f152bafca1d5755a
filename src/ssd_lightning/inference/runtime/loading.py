"""Opens exported files."""

from pathlib import Path

import torch

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.runtime.network import ExportedNetwork
from ssd_lightning.inference.runtime.onnx_network import OnnxNetwork
from ssd_lightning.inference.runtime.torchscript_network import TorchScriptNetwork, is_torchscript


def load_exported(path: Path, device: torch.device | str, precision: str) -> ExportedNetwork | None:
    """Open an exported network. None for a file that contains only weights.

    Args:
        path: the file. The type of `.onnx` and `.torchscript` follows from the suffix; a `.pt` file is inspected.
        device: device to run on.
        precision: requested precision.

    Raises:
        ConfigurationError: a precision other than float32 is requested.
        WeightsError: the file cannot be used.
    """
    kind = OnnxNetwork if path.suffix == ".onnx" else TorchScriptNetwork if is_torchscript(path) else None
    if kind is None:
        return None
    if precision != "float32":
        raise ConfigurationError(f"precision is '{precision}', but {path} computes in the precision it was exported in")
    return kind(path, device)
