"""Write a trained detector in another format and verify the file, or write its weights with another project's names."""

import io
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import torch
from omegaconf import DictConfig

from ssd_lightning.checks import require_choice, require_number
from ssd_lightning.command_line import warn_without
from ssd_lightning.commands import evaluate
from ssd_lightning.commands.export_notes import labels_file, numbers, print_companions, print_detectnet, print_input
from ssd_lightning.commands.export_verification import verify_file
from ssd_lightning.commands.outputs import make_folder_of, writing_to
from ssd_lightning.data.dataset import require_objects
from ssd_lightning.data.detection_data import DetectionData
from ssd_lightning.data.resize import Letterbox
from ssd_lightning.data.stages import STAGES
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.export.converters import write_ncnn, write_tflite
from ssd_lightning.inference.export.files import quantize_int8, write_onnx, write_safetensors, write_torchscript
from ssd_lightning.inference.export.graph import DETECTNET
from ssd_lightning.inference.runtime.description import network_files
from ssd_lightning.inference.runtime.exported_files import Backend
from ssd_lightning.models.checkpoint_formats import distance_of_priors, recognise
from ssd_lightning.models.weights import export_weights
from ssd_lightning.run_files import written_whole

log = logging.getLogger(__name__)

SUFFIXES = {
    "onnx": (".onnx",),
    "torchscript": (".torchscript", ".pt"),
    "safetensors": (".safetensors",),
    "tflite": (".tflite",),
    "ncnn": (".param",),
}
"""Formats of whole detectors. `Detector.load` recognises them by the suffix."""
FOREIGN = ("ssd.pytorch", "lufficc", "qfgaohao", "torchvision")
"""Projects whose weight names are supported."""
FORMATS = (*SUFFIXES, *FOREIGN)


def export(config: DictConfig) -> None:
    """Write a checkpoint's network in another format.

    A whole detector is first written as `NAME.unverified.SUFFIX`. It is renamed once it is verified. Otherwise it keeps
    that name for inspection, and the command exits with code 1.
    """
    check_settings(config)
    output = Path(config.output)
    unverified = output.with_name(f"{output.stem}.unverified{output.suffix}")
    files = network_files(output)
    for file in files:
        if file.exists():
            raise ConfigurationError(f"output={output}: {file} exists and is not replaced")
    for left in network_files(unverified):
        if config.format not in FOREIGN and left.exists():
            raise ConfigurationError(f"{left} exists, from an export that was not verified; it is not replaced")
    checkpoint = Detector.load(config.checkpoint)
    evaluate.use_image_size(config, checkpoint)
    if config.format in FOREIGN:
        write_foreign(checkpoint, config.format, output)
        return
    checkpoint.network  # noqa: B018  raises for an exported file
    own = None
    has_nms = config.format in ("onnx", "torchscript") and contents_of(config)["nms"]
    if has_nms and checkpoint.postprocess.soft_nms is not None:
        own = checkpoint.postprocess  # a graph cannot contain it
        checkpoint.use_postprocess(soft_nms=None)
        log.warning(
            "the file has NMS inside in place of the checkpoint's postprocess.soft_nms=%s; "
            "nms=false leaves it to the program that reads the file",
            own.soft_nms,
        )
    if config.layout and isinstance(checkpoint.resize, Letterbox):
        raise ConfigurationError("layout=detectnet: detectNet stretches images, but this detector letterboxes them")
    data = None
    if config.get("data") is not None:
        data = evaluate.open_data(config, checkpoint)
        # Report missing data before anything is written. Without objects, mAP could not show the cost of the file.
        require_objects(data.dataset(config.split), config.split)
    make_folder_of("output", output)
    try:
        with writing_to("output", output):
            write(config, checkpoint, data, unverified)
    except BaseException:
        for file in network_files(unverified):
            file.unlink(missing_ok=True)
        raise
    failures = verify_file(config, checkpoint, data, unverified, own=own)
    if failures:
        print(f"error: {unverified} is not verified and keeps that name: {'; '.join(failures)}", file=sys.stderr)
        sys.exit(1)
    for new, file in zip(network_files(unverified), files, strict=True):
        if file.exists():  # by now
            raise ConfigurationError(f"output={output}: {file} exists and is not replaced; the new file is {new}")
        new.rename(file)
    kind = f"{config.format}, {config.quantize}" if config.quantize else config.format
    print(f"{output}: {len(checkpoint.network.state_dict())} tensors, {kind}")
    if config.layout:
        print_detectnet(checkpoint, output)
    elif len(files) > 1:
        print_companions(checkpoint, files[1:])
    else:
        print_input(checkpoint, is_prepared=config.format != "safetensors" and config.preprocessing)


def contents_of(config: DictConfig) -> dict[str, Any]:
    """Return what a graph contains, as arguments of `describe_export`."""
    return dict(DETECTNET) if config.layout else {"preprocessing": config.preprocessing, "nms": config.nms}


def check_settings(config: DictConfig) -> None:
    """Check the settings that need no checkpoint."""
    require_choice("format", config.format, FORMATS)
    suffixes = SUFFIXES.get(config.format)
    if suffixes and Path(config.output).suffix not in suffixes:
        raise ConfigurationError(f"output={config.output}: a file of format={config.format} ends in {suffixes[0]}")
    meant = [name for name, of in SUFFIXES.items() if Path(config.output).suffix in of and ".pt" not in of]
    if config.format in FOREIGN and meant:
        raise ConfigurationError(
            f"output={config.output}: format={config.format} writes weights for torch.load; such a file needs "
            f"format={meant[0]}"
        )
    require_number("tolerance", config.tolerance, 0)
    require_number("max_map_loss", config.max_map_loss, 0, 1)
    require_number("images", config.images, 1, whole=True)
    require_choice("backend", config.backend, get_args(Backend))
    for name, without in (("quantize", None), ("layout", None), ("backend", "onnx")):
        if config[name] != without and config.format != "onnx":
            raise ConfigurationError(f"{name}={config[name]} needs format=onnx, not format={config.format}")
    if config.quantize is None:
        warn_without("quantize", "calibration_images")
    else:
        require_choice("quantize", config.quantize, ("null", "int8"))
        require_number("calibration_images", config.calibration_images, 1, whole=True)
        if config.get("data") is None:
            raise ConfigurationError(
                "quantize=int8 calibrates on training images and measures its cost: say which, e.g. data=voc_folder "
                "data.root=FOLDER"
            )
    if config.get("data") is None:
        warn_without("data", "split", "max_map_loss")
    if config.layout is not None:
        require_choice("layout", config.layout, ("null", "detectnet"))
        if labels_file(Path(config.output)).exists():
            raise ConfigurationError(f"{labels_file(Path(config.output))} exists; it is not replaced")
    require_choice("split", config.split, STAGES)


def write(config: DictConfig, checkpoint: Detector, data: DetectionData | None, path: Path) -> None:
    """Write the file that will be verified."""
    match config.format:
        case "safetensors":
            write_safetensors(checkpoint, path)
        case "tflite":
            write_tflite(checkpoint, path)
        case "ncnn":
            write_ncnn(checkpoint, path)
        case "torchscript":
            write_torchscript(checkpoint, path, **contents_of(config))
        case _ if config.quantize is None:
            write_onnx(checkpoint, path, **contents_of(config))
        case _:
            assert data is not None
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder) / "float32.onnx"
                description = write_onnx(checkpoint, source, **contents_of(config))
                dataset = data.dataset("train")
                step = max(1, len(dataset) // config.calibration_images)
                chosen = range(0, len(dataset), step)[: config.calibration_images]
                images = (dataset[index][0][None] for index in chosen)  # without augmentation: `augmentation` is null
                quantize_int8(source, path, description, [description.as_input(image).numpy() for image in images])


def write_foreign(checkpoint: Detector, project: str, output: Path) -> None:
    """Write the weights with another project's names."""
    net = checkpoint.network
    weights: dict[str, Any] = export_weights(net, project)
    file = io.BytesIO()  # torch's own errors of files are not those of the system
    torch.save(weights, file)
    make_folder_of("output", output)
    with writing_to("output", output), written_whole(output) as partial:
        partial.write_bytes(file.getbuffer())
    print(f"{output}: {len(net.state_dict())} tensors, {project}")
    print_input(checkpoint, is_prepared=False)
    origin = recognise(weights, str(output))
    if distance_of_priors(origin, net.priors_cxcywh) > 1e-5:
        print(f"Its priors are not those of {origin.overrides}: boxes have to be decoded with this network's own.")
    if project == "torchvision":
        preset = net.normalization
        mean, std = (numbers(value / 255 for value in values) for values in (preset.mean, preset.std))
        print(f"torchvision's constructors take this as image_mean=[{mean}], image_std=[{std}].")
