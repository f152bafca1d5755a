"""Runs ONNX files with onnxruntime, OpenVINO or OpenCV."""

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ssd_lightning.checks import require_package
from ssd_lightning.errors import WeightsError
from ssd_lightning.inference.runtime.description import ExportDescription, errors_of
from ssd_lightning.inference.runtime.network import ExportedNetwork
from ssd_lightning.models.files import require_file

log = logging.getLogger(__name__)

STANDARD = ("", "ai.onnx")
"""Domains of ONNX's own operators. None of them accesses files or the network."""
PACKAGES = "'ssd-lightning[export]'"
"""What `pip install` gets for ONNX files."""


class _OnnxFile(ExportedNetwork):
    """An ONNX file written by `export format=onnx`.

    Args:
        path: the file.
        device: device that runs it, if the runtime can use it; else the CPU. Inputs and outputs are on the CPU.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        content, metadata = read_onnx(path)
        super().__init__(path, ExportDescription.from_metadata(metadata, path), torch.device("cpu"))
        # From memory: the checked bytes are the ones that run, and no other files are read.
        self._load(content, torch.device(device))

    @abstractmethod
    def _load(self, content: bytes, device: torch.device) -> None:
        """Load the file's bytes with the runtime."""

    def _require(self, ends: str, given: list[Any], wanted: list[Any]) -> None:
        if given != wanted:
            raise WeightsError(f"{self.path} has the {ends} {given!r:.200}, which do not match its metadata")


class OnnxNetwork(_OnnxFile):
    """An ONNX file in onnxruntime, on the CPU, or on the GPU if the package supports it. See `_OnnxFile`."""

    runtime = "onnxruntime"

    def _load(self, content: bytes, device: torch.device) -> None:
        onnxruntime = require_package("onnxruntime", self.path, PACKAGES)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Spinning threads would take the cores from data workers and torch between two calls.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # only errors; the warnings are about its optimiser
        providers = ["CPUExecutionProvider"]
        if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        elif device.type != "cpu":
            log.warning("%s runs on the CPU: this onnxruntime has no provider for %s", self.path, device)
        with errors_of(f"{self.path}: onnxruntime rejects it"):
            self._session = onnxruntime.InferenceSession(content, options, providers=providers)
        kind = "uint8" if self.description.preprocessing else "float"
        wanted = [(self.description.layout.input_name, f"tensor({kind})")]
        self._require("inputs", [(end.name, end.type) for end in self._session.get_inputs()], wanted)
        self._require("outputs", [end.name for end in self._session.get_outputs()], [*self.description.output_names])

    def _run(self, inputs: Tensor) -> Sequence[Any]:
        outputs: Sequence[Any] = self._session.run(None, {self.description.layout.input_name: inputs.numpy()})
        return outputs


class OpenVinoNetwork(_OnnxFile):
    """An ONNX file in OpenVINO, on the CPU in float32, without a conversion. See `_OnnxFile`."""

    runtime = "OpenVINO"

    def _load(self, content: bytes, device: torch.device) -> None:
        openvino = require_package("openvino", f"{self.path}: backend=openvino", "'ssd-lightning[openvino]'")
        settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
        with errors_of(f"{self.path}: OpenVINO rejects it"):
            core = openvino.Core()
            self._model = core.compile_model(core.read_model(content, b""), "CPU", settings)
        self._require("inputs", [end.any_name for end in self._model.inputs], [self.description.layout.input_name])
        self._require("outputs", [end.any_name for end in self._model.outputs], [*self.description.output_names])

    def _run(self, inputs: Tensor) -> Sequence[Any]:
        results = self._model({self.description.layout.input_name: inputs.numpy()})
        return [results[end] for end in self._model.outputs]


class OpenCVNetwork(_OnnxFile):
    """An ONNX file in the dnn module of OpenCV, on the CPU. See `_OnnxFile`."""

    runtime = f"OpenCV {cv2.__version__}"

    def _load(self, content: bytes, device: torch.device) -> None:
        with errors_of(f"{self.path}: {self.runtime} rejects it"):
            self._net = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))

    def _run(self, inputs: Tensor) -> Sequence[Any]:
        self._net.setInput(inputs.numpy(), self.description.layout.input_name)
        outputs: Sequence[Any] = self._net.forward(list(self.description.output_names))
        return outputs


def read_onnx(path: Path) -> tuple[bytes, dict[str, str]]:
    """Read the bytes and the metadata of a model without running it, and check that it is intact and self-contained.

    It may have no data in other files, no operators that are not ONNX's own, and no functions, branches or loops. Files
    of this package have none of these.
    """
    onnx = require_package("onnx", path, PACKAGES)
    content = require_file(path).read_bytes()
    with errors_of(f"{path} is damaged or not an ONNX file"):
        model = onnx.ModelProto.FromString(content)
    _require_safe(model, path)
    for tensor in _tensors_of(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
            raise WeightsError(f"{path} keeps '{tensor.name:.50}' in another file, {place!r:.100}; it is not read")
    return content, {entry.key: entry.value for entry in model.metadata_props}


def _require_safe(model: Any, path: Path) -> None:
    """Raise `WeightsError` if a model has no operators, or others than ONNX's own without inner graphs."""
    if not model.graph.node:
        raise WeightsError(f"{path} is not an ONNX file: it has no network")
    if model.functions:
        raise WeightsError(f"{path} defines its own functions, '{model.functions[0].name:.50}'; it is not run")
    for node in model.graph.node:
        if node.domain not in STANDARD:
            raise WeightsError(f"{path} needs the operator '{node.domain:.50}::{node.op_type:.50}'; it is not run")
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise WeightsError(f"{path} has a branch or loop, {node.op_type:.50}; it is not run")


def _tensors_of(graph: Any) -> Iterator[Any]:
    """Yield all tensors of a graph: weights and attributes, dense and sparse."""
    yield from graph.initializer
    sparse = [*graph.sparse_initializer]
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)
