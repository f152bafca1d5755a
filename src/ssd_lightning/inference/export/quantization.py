"""Static int8 quantisation with onnxruntime."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.export.files import quiet_exporters, set_metadata
from ssd_lightning.inference.runtime.description import ExportDescription

ROUNDED = ("Conv", "Relu", "Clip", "MaxPool")
"""Quantized operators. With convolutions alone, half of the range would be used for values that the ReLU removes."""


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
