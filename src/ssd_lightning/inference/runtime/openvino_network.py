"""Runs ONNX files with OpenVINO, on the CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.inference.runtime.description import ExportDescription
from ssd_lightning.inference.runtime.network import ExportedNetwork
from ssd_lightning.inference.runtime.onnx_network import read_onnx


class OpenVinoNetwork(ExportedNetwork):
    """An ONNX file written by `export format=onnx`. OpenVINO reads it without a conversion.

    Raises:
        ConfigurationError: openvino or onnx is not installed.
        WeightsError: the file is missing, damaged, not written by this package, or not self-contained.
    """

    def __init__(self, path: Path) -> None:
        content, metadata = read_onnx(path)
        super().__init__(path, ExportDescription.from_metadata(metadata, path), torch.device("cpu"))
        self._model = compile_model(content, path)
        inputs = [end.any_name for end in self._model.inputs]
        outputs = tuple(end.any_name for end in self._model.outputs)
        if inputs != [self.description.layout.input_name] or outputs != self.description.output_names:
            raise WeightsError(
                f"{path} has the inputs {inputs!r:.100} and outputs {outputs!r:.100}, not as its metadata"
            )

    def run(self, inputs: Tensor) -> Sequence[Tensor]:
        """Run the network on the file's input."""
        try:
            results = self._model({self.description.layout.input_name: inputs.numpy()})
        except RuntimeError as error:
            raise WeightsError(f"{self.path} failed in OpenVINO: {str(error)[:200]}") from error
        return [torch.from_numpy(np.array(results[end])) for end in self._model.outputs]


def compile_model(content: bytes, path: Path) -> Any:
    """Compile a model for the CPU in float32, with the same number of threads as torch.

    Raises:
        ConfigurationError: openvino is not installed.
        WeightsError: OpenVINO rejects the model.
    """
    try:
        import openvino
    except ImportError as error:
        raise ConfigurationError(
            f"{path}: backend=openvino needs a package: pip install 'ssd-lightning[openvino]'"
        ) from error
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    try:
        core = openvino.Core()
        # From memory: the checked bytes are the ones that run, and no other files are read.
        return core.compile_model(core.read_model(content, b""), "CPU", settings)
    except RuntimeError as error:
        raise WeightsError(f"{path}: OpenVINO rejects it: {str(error)[:200]}") from error
