"""Runs TFLite files with LiteRT, on the CPU whatever the device."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ssd_lightning.checks import require_package
from ssd_lightning.errors import WeightsError
from ssd_lightning.inference.runtime.description_file import read_description
from ssd_lightning.inference.runtime.network import ExportedNetwork


class LiteRTNetwork(ExportedNetwork):
    """A TFLite file written by `export format=tflite`, with its description beside it.

    Raises:
        ConfigurationError: ai-edge-litert is not installed.
        WeightsError: a file is missing, damaged or not written by this package.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        super().__init__(path, read_description(path), torch.device("cpu"))
        litert = require_package("ai_edge_litert.interpreter", path, "'ssd-lightning[litert]'")
        try:
            self._interpreter = litert.Interpreter(model_path=str(path), num_threads=torch.get_num_threads())
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"{path}: LiteRT rejects it: {str(error)[:200]}") from error
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if (len(inputs), len(outputs)) != (1, len(self.description.output_names)):
            raise WeightsError(f"{path} has {len(inputs)} inputs and {len(outputs)} outputs, not as its description")
        self._input = inputs[0]["index"]
        # TensorFlow replaces the names, but numbers the new ones in order.
        self._outputs = [output["index"] for output in sorted(outputs, key=lambda output: output["name"])]

    def run(self, inputs: Tensor) -> Sequence[Tensor]:
        """Run the network on the file's input."""
        try:
            with self.turn:
                self._interpreter.set_tensor(self._input, inputs.numpy())
                self._interpreter.invoke()
                return [torch.from_numpy(self._interpreter.get_tensor(index)) for index in self._outputs]
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"{self.path} failed in LiteRT: {str(error)[:200]}") from error
