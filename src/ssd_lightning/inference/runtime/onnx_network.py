"""Runs ONNX files with onnxruntime, on the CPU, or on the GPU if the package supports it."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.inference.runtime.description import ExportDescription
from ssd_lightning.inference.runtime.network import ExportedNetwork

log = logging.getLogger(__name__)

STANDARD = ("", "ai.onnx")
"""Domains of ONNX's own operators. None of them accesses files or the network."""
NEEDED = "onnxruntime and onnx are needed for ONNX files: pip install 'ssd-lightning[export]'"


class OnnxNetwork(ExportedNetwork):
    """An ONNX file written by `export format=onnx`. The CPU is used if onnxruntime cannot use the device.

    Raises:
        ConfigurationError: onnxruntime or onnx is not installed.
        WeightsError: the file is missing, damaged, not written by this package, or not self-contained.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        content, metadata = read_onnx(path)
        description = ExportDescription.from_metadata(metadata, path)
        super().__init__(path, description, torch.device("cpu"))  # the session copies data to the GPU
        self._session = make_session(content, path, torch.device(device))
        self._check_ends()

    def run(self, inputs: Tensor) -> Sequence[Tensor]:
        """Run the network on the file's input."""
        try:
            outputs = self._session.run(None, {self.description.layout.input_name: inputs.numpy()})
        except Exception as error:  # its exceptions share no base class
            raise WeightsError(f"{self.path} failed in onnxruntime: {str(error)[:200]}") from error
        return [torch.from_numpy(np.asarray(output)) for output in outputs]

    def _check_ends(self) -> None:
        given = [(end.name, end.type) for end in self._session.get_inputs()]
        kind = "uint8" if self.description.preprocessing else "float"
        if given != [(self.description.layout.input_name, f"tensor({kind})")]:
            raise WeightsError(f"{self.path} has the inputs {given!r:.200}, which do not match its metadata")
        names = tuple(end.name for end in self._session.get_outputs())
        if names != self.description.output_names:
            raise WeightsError(f"{self.path} has the outputs {names!r:.200}, which do not match its metadata")


def make_session(content: bytes, path: Path, device: torch.device) -> Any:
    """Create a session with the same number of threads as torch.

    Raises:
        ConfigurationError: onnxruntime is not installed.
        WeightsError: onnxruntime rejects the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigurationError(f"{path}: {NEEDED}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Spinning threads would take the cores from data workers and torch between two calls.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # only errors; the warnings are about its optimiser
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    elif device.type != "cpu":
        log.warning("%s runs on the CPU: this onnxruntime has no provider for %s", path, device)
    try:
        # From memory: the checked bytes are the ones that run, and no other files are read.
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # its exceptions share no base class
        raise WeightsError(f"{path}: onnxruntime rejects it: {str(error)[:200]}") from error


def read_onnx(path: Path) -> tuple[bytes, dict[str, str]]:
    """Read a model without running it, and check that it is intact and self-contained.

    It may have no data in other files, no operators that are not ONNX's own, and no functions, branches or loops. Files
    of this package have none of these.

    Returns:
        The file's bytes and its metadata.
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
    try:
        import onnx
    except ImportError as error:
        raise ConfigurationError(f"{path}: {NEEDED}") from error
    content = path.read_bytes()
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's implementations raise different types
        raise WeightsError(f"{path} is damaged or not an ONNX file: {str(error)[:200]}") from error
    if not model.graph.node:
        raise WeightsError(f"{path} is not an ONNX file: it has no network")
    if model.functions:
        raise WeightsError(f"{path} defines its own functions, '{model.functions[0].name:.50}'; it is not run")
    for node in model.graph.node:
        if node.domain not in STANDARD:
            raise WeightsError(f"{path} needs the operator '{node.domain:.50}::{node.op_type:.50}'; it is not run")
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise WeightsError(f"{path} has a branch or loop, {node.op_type:.50}; it is not run")
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
            raise WeightsError(f"{path} keeps '{tensor.name:.50}' in another file, {place!r:.100}; it is not read")
    return content, {entry.key: entry.value for entry in model.metadata_props}


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for sparse in model.graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for attribute in (attribute for node in model.graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
