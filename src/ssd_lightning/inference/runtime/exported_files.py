"""Which runtime runs an exported file."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import torch

from ssd_lightning.checks import require_choice
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.runtime.mobile_networks import LiteRTNetwork, NcnnNetwork
from ssd_lightning.inference.runtime.network import ExportedNetwork
from ssd_lightning.inference.runtime.onnx_network import OnnxNetwork, OpenCVNetwork, OpenVinoNetwork
from ssd_lightning.inference.runtime.torchscript_network import TorchScriptNetwork, is_torchscript

Backend = Literal["onnx", "openvino", "opencv"]
"""What runs an ONNX file: onnxruntime, OpenVINO or OpenCV."""
RUNTIMES: dict[str, Callable[[Path, torch.device | str], ExportedNetwork]] = {
    "onnx": OnnxNetwork,
    "openvino": OpenVinoNetwork,
    "opencv": OpenCVNetwork,
    ".tflite": LiteRTNetwork,
    ".param": NcnnNetwork,
}
"""By their `Backend` for ONNX files, by the suffix for others. TorchScript files have no suffix of their own."""


def open_exported(path: Path, device: torch.device | str = "cpu", backend: Backend = "onnx") -> ExportedNetwork | None:
    """Open an exported file in its runtime; None if the file is not an exported one.

    Raises:
        ConfigurationError: `backend` is unknown, or it is not `onnx` and the file is not an ONNX file.
        WeightsError: the file is damaged, or this package did not write it.
    """
    require_choice("backend", backend, get_args(Backend))
    if backend != "onnx" and path.suffix != ".onnx":
        raise ConfigurationError(f"backend={backend} runs ONNX files, not {path}; `export format=onnx` writes one")
    kind = backend if path.suffix == ".onnx" else path.suffix
    runtime = TorchScriptNetwork if is_torchscript(path) else RUNTIMES.get(kind)
    return None if runtime is None else runtime(path, device)
