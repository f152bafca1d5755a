"""Writes detectors for phones and small boards: an ONNX file goes through the converter of the format."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.export.files import write_onnx
from ssd_lightning.inference.runtime.description import Layout, write_description
from ssd_lightning.inference.runtime.mobile_networks import NCNN_INPUT
from ssd_lightning.ops.normalization import IDENTITY

log = logging.getLogger(__name__)

OUTSIDE: Mapping[str, Any] = {"preprocessing": False, "nms": False, "normalization": IDENTITY}
"""Arguments of `describe_export`, besides the layout: images of the network's size, colours from 0 to 255."""

TIME_LIMIT_S = 1800
INSTALL_ONNX2TF = "uv tool install --python 3.11 onnx2tf --with tensorflow --with tf-keras --with psutil"
"""In an environment of its own, because TensorFlow needs older packages than this project."""
SAMPLE_IMAGES = "calibration_image_sample_data_20x128x128x3_float32.npy"
"""File that onnx2tf downloads if it is not in the working directory. It serves int8, which is not used here."""


def write_tflite(detector: Detector, path: Path) -> None:
    """Write a TFLite file in float32, and its description beside it.

    Raises:
        ConfigurationError: onnx2tf is not installed or fails, or the detector cannot be exported; see `write_onnx`.
    """
    converter = _find("onnx2tf", INSTALL_ONNX2TF)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        description = write_onnx(detector, folder / "detector.onnx", layout=Layout("image", batch=1), **OUTSIDE)
        np.save(folder / SAMPLE_IMAGES, np.zeros((20, 128, 128, 3), np.float32))
        _convert([converter, "-i", "detector.onnx", "-o", "out", "-n"], folder, folder / "out/detector_float32.tflite")
        shutil.copyfile(folder / "out/detector_float32.tflite", path)
    write_description(path, replace(description, layout=replace(description.layout, channels_last=True)))


def write_ncnn(detector: Detector, path: Path) -> None:
    """Write ncnn's files, `path` with the layers and `.bin` with the weights in float32, and their description.

    Raises:
        ConfigurationError: pnnx is not installed or fails, or the detector cannot be exported; see `write_onnx`.
    """
    converter = _find("pnnx", "pip install 'ssd-lightning[ncnn]'")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # From TorchScript, pnnx 20261020 writes without a warning a network that gives other scores.
        description = write_onnx(detector, folder / "detector.onnx", layout=Layout(NCNN_INPUT, batch=1), **OUTSIDE)
        shape = f"inputshape=[1,3,{description.image_size[0]},{description.image_size[1]}]"
        _convert([converter, "detector.onnx", shape, "fp16=0"], folder, folder / "detector.ncnn.param")
        for suffix in (".param", ".bin"):
            shutil.copyfile(folder / f"detector.ncnn{suffix}", path.with_suffix(suffix))
    write_description(path, description)


def _find(program: str, install: str) -> str:
    """Return the path of a converter: beside this Python, or on the PATH."""
    found = shutil.which(program, path=_path_with(Path(sys.executable).parent))
    if found is None:
        raise ConfigurationError(f"the program {program} is needed: {install}")
    return found


def _path_with(folder: Path) -> str:
    return os.pathsep.join([str(folder), os.environ.get("PATH", "")])


def _convert(command: Sequence[str], folder: Path, result: Path) -> None:
    """Run a converter in a folder. It must not find this project's packages, but the programs beside it."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment["PATH"] = _path_with(Path(command[0]).resolve().parent)
    program = Path(command[0]).name
    try:
        done = subprocess.run(  # noqa: S603  the program that `_find` found
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"{program} failed: {error}") from error
    if done.returncode or not result.is_file():
        output = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()] or ["nothing"]
        log.error("%s printed:\n  %s", program, "\n  ".join(output[-40:]))
        last = output[-1].strip()
        raise ConfigurationError(f"{program} failed with exit code {done.returncode}; it printed last: {last:.300}")
