"""Writes detectors as ONNX, also in int8, TorchScript and safetensors files."""

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from ssd_lightning.checks import require_package
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.export.graph import ExportGraph, describe_export, dynamic_axes, example_input
from ssd_lightning.inference.export.graph_nms import OPSET, graph_nms, nms_in_onnx, nms_node
from ssd_lightning.inference.runtime.description import ExportDescription
from ssd_lightning.inference.runtime.onnx_network import PACKAGES
from ssd_lightning.inference.runtime.torchscript_network import METADATA_FILE, quiet_jit
from ssd_lightning.models.files import DETECTOR_KEY

ROUNDED = ("Conv", "Relu", "Clip", "MaxPool")
"""Quantized operators. With convolutions alone, half of the range would be used for values that the ReLU removes."""


def write_onnx(detector: Detector, path: Path, **contents: Any) -> ExportDescription:
    """Write an ONNX file of opset 18. The `contents` are arguments of `describe_export`.

    Raises:
        ConfigurationError: a package is missing, or the detector cannot be exported in this way.
    """
    description = describe_export(detector, **contents)
    for package in ("onnx", "onnxruntime", "onnxscript"):
        require_package(package, "format=onnx", PACKAGES)
    with _contiguous(detector), quiet_exporters():
        program = torch.onnx.export(
            ExportGraph(detector.network, description, nms_node).eval(),
            (example_input(description, detector.device),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[description.layout.input_name],
            output_names=list(description.output_names),
            dynamic_shapes=(dynamic_axes(description),),
            custom_translation_table={torch.ops.ssd_lightning.nms.default: nms_in_onnx},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    set_metadata(model, description)
    path.write_bytes(model.SerializeToString())
    return description


def set_metadata(model: Any, description: ExportDescription) -> None:
    """Replace the metadata of an ONNX model."""
    import onnx

    del model.metadata_props[:]
    onnx.helper.set_model_props(model, description.as_metadata())
    model.producer_name, model.producer_version = "ssd_lightning", description.version


def quantize_int8(source: Path, target: Path, description: ExportDescription, inputs: Sequence[np.ndarray]) -> None:
    """Write an int8 copy of a float32 ONNX file of `write_onnx`, which has this description.

    Weights become int8 with one scale per channel, and use 7 of the 8 bits: processors without VNNI add products of
    uint8 and int8 in 16 bits, which overflow otherwise (on one, OpenVINO lost .035 mAP by that on BCCD). Activations
    become uint8 with the range of the calibration inputs, each of which is a batch in the file's input format. Softmax,
    decoding and NMS stay in float32: they need its precision and are a small part of the work.

    Raises:
        ConfigurationError: there are no inputs.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if not inputs:
        raise ConfigurationError("quantize=int8 needs images to calibrate with; there are none")
    batches = iter([{description.layout.input_name: values} for values in inputs])
    with tempfile.TemporaryDirectory() as folder, quiet_exporters():
        folded, rounded = Path(folder) / "folded.onnx", Path(folder) / "rounded.onnx"
        quant_pre_process(source, folded, skip_symbolic_shape=True)  # batch norms become part of convolutions
        quantize_static(
            folded,
            rounded,
            SimpleNamespace(get_next=lambda: next(batches, None)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(ROUNDED),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = onnx.load_model(rounded)
    set_metadata(model, replace(description, quantization="int8"))
    target.write_bytes(model.SerializeToString())


def write_torchscript(detector: Detector, path: Path, **contents: Any) -> ExportDescription:
    """Write a TorchScript file. To load a file with NMS, `import torchvision` first.

    The format is meant for C++ programs. torch deprecates `torch.jit` from 2.10 on, but still includes it. Arguments
    and errors are those of `write_onnx`.
    """
    description = describe_export(detector, **contents)
    with _contiguous(detector), quiet_jit(), torch.no_grad():
        graph = ExportGraph(detector.network, description, torch.jit.script(graph_nms)).eval()
        script = torch.jit.trace(graph, example_input(description, detector.device), check_trace=False)
        # By a buffer, since torch's own errors of files are not those of the system.
        path.write_bytes(script.save_to_buffer(_extra_files={METADATA_FILE: json.dumps(description.as_metadata())}))
    return description


def write_safetensors(detector: Detector, path: Path) -> None:
    """Write the weights under their own names, with the detector's description as metadata."""
    weights = {name: tensor.contiguous() for name, tensor in detector.network.state_dict().items()}
    path.write_bytes(save(weights, metadata={DETECTOR_KEY: json.dumps(detector.spec())}))


@contextmanager
def _contiguous(detector: Detector) -> Iterator[None]:
    """Temporarily use the contiguous memory format, which exporters expect."""
    detector.network.to(memory_format=torch.contiguous_format)
    try:
        yield
    finally:
        detector.network.to(memory_format=torch.channels_last)


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Silence the warnings of exporters, which are about their own code or advise what is done here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
