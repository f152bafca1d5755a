"""Runs TFLite files with LiteRT, and ncnn files, on the CPU in float32 whatever the device."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.checks import require_package
from ssd_lightning.errors import WeightsError
from ssd_lightning.inference.runtime.description import errors_of, read_description
from ssd_lightning.inference.runtime.network import ExportedNetwork

NCNN_MAGIC = b"7767517"
"""First line of ncnn's file of layers."""
NCNN_INPUT, NCNN_OUTPUTS = "in0", ("out0", "out1")
"""Names that pnnx gives; the outputs are boxes and scores."""


class LiteRTNetwork(ExportedNetwork):
    """A TFLite file written by `export format=tflite`, with its description beside it."""

    runtime = "LiteRT"

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        super().__init__(path, read_description(path), torch.device("cpu"))
        litert = require_package("ai_edge_litert.interpreter", path, "'ssd-lightning[litert]'")
        with errors_of(f"{path}: LiteRT rejects it"):
            self._interpreter = litert.Interpreter(model_path=str(path), num_threads=torch.get_num_threads())
            self._interpreter.allocate_tensors()
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if (len(inputs), len(outputs)) != (1, len(self.description.output_names)):
            raise WeightsError(f"{path} has {len(inputs)} inputs and {len(outputs)} outputs, not as its description")
        self._input = inputs[0]["index"]
        # TensorFlow replaces the names, but numbers the new ones in order.
        self._outputs = [output["index"] for output in sorted(outputs, key=lambda output: output["name"])]

    def _run(self, inputs: Tensor) -> Sequence[Any]:
        self._interpreter.set_tensor(self._input, inputs.numpy())
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


class NcnnNetwork(ExportedNetwork):
    """A pair of files (`.param` and `.bin`) written by `export format=ncnn`, with their description beside them."""

    runtime = "ncnn"

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        super().__init__(path, read_description(path), torch.device("cpu"))
        ncnn = self._ncnn = require_package("ncnn", path, "'ssd-lightning[ncnn]'")
        lines = path.read_bytes().splitlines()
        if lines[:1] != [NCNN_MAGIC]:
            raise WeightsError(f"{path} is not a file of ncnn: it begins with {b''.join(lines[:1])[:20]!r}")
        kinds = {line.split()[0].decode(errors="replace") for line in lines[2:] if line.strip()}
        if unknown := sorted(kind for kind in kinds if ncnn.layer_to_index(kind) < 0):
            names = f"{', '.join(unknown):.200}"
            raise WeightsError(f"{path} needs layers that ncnn {ncnn.__version__} does not have: {names}")
        self._net = net = ncnn.Net()
        net.opt.num_threads = torch.get_num_threads()
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        for load, file_path in ((net.load_param, path), (net.load_model, path.with_suffix(".bin"))):
            if code := load(str(file_path)):
                raise WeightsError(f"{file_path}: ncnn rejects it (code {code})")

    def _run(self, inputs: Tensor) -> Sequence[Any]:
        extractor = self._net.create_extractor()
        extractor.input(NCNN_INPUT, self._ncnn.Mat(inputs[0].numpy()).clone())
        outputs = []
        for name in NCNN_OUTPUTS:
            code, output = extractor.extract(name)
            if code:
                raise WeightsError(f"{self.path} failed in ncnn: no output {name} (code {code})")
            outputs.append(np.array(output)[None])
        return outputs
