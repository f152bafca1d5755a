"""Runs ONNX files with the dnn module of OpenCV, on the CPU."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ssd_lightning.errors import WeightsError
from ssd_lightning.inference.runtime.description import ExportDescription
from ssd_lightning.inference.runtime.network import ExportedNetwork
from ssd_lightning.inference.runtime.onnx_network import read_onnx


class OpenCVNetwork(ExportedNetwork):
    """An ONNX file written by `export format=onnx`.

    Raises:
        ConfigurationError: onnx, which checks the file, is not installed.
        WeightsError: the file is missing, damaged, not written by this package, or not self-contained.
    """

    def __init__(self, path: Path) -> None:
        content, metadata = read_onnx(path)
        super().__init__(path, ExportDescription.from_metadata(metadata, path), torch.device("cpu"))
        try:
            self._net = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
        except cv2.error as error:
            raise WeightsError(f"{path}: OpenCV {cv2.__version__} rejects it: {str(error)[:200]}") from error

    def run(self, inputs: Tensor) -> Sequence[Tensor]:
        """Run the network on the file's input."""
        try:
            self._net.setInput(inputs.numpy(), self.description.layout.input_name)
            outputs = self._net.forward(list(self.description.output_names))
        except cv2.error as error:
            raise WeightsError(f"{self.path} failed in OpenCV {cv2.__version__}: {str(error)[:200]}") from error
        return [torch.from_numpy(np.array(output)) for output in outputs]
