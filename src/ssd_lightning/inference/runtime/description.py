"""The description of an exported file, so that it can be used without this package.

It is stored in the file, or as JSON beside it for formats that have no place for it.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd_lightning.checks import require_bool, require_choice, require_number, require_object
from ssd_lightning.data.annotation_checks import as_class_names
from ssd_lightning.data.resize import Letterbox, ResizeMode, Stretch, as_resize_mode, plain_mode
from ssd_lightning.errors import WeightsError
from ssd_lightning.models.files import require_file
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.normalization import Normalization
from ssd_lightning.ops.priors import as_height_width

MARKER = "ssd_lightning"
"""Metadata entry that only files of this package have: the version that wrote them."""

DETECTIONS = ("boxes", "scores", "labels", "num_detections")
"""Outputs of a file with NMS inside."""
PREDICTIONS = ("boxes", "scores")
"""Outputs of a file without NMS."""

MOST_PIXELS = 100_000_000
"""Limit for a network's input, because files are untrusted."""


@dataclass(frozen=True)
class Layout:
    """The input as the program that reads the file expects it.

    Attributes:
        input_name: name of the input.
        batch: number of images of each call; None allows any.
        channels_last: a prepared input is `[B, H, W, 3]`, not `[B, 3, H, W]`.
    """

    input_name: str = "images"
    batch: int | None = None
    channels_last: bool = False

    def __post_init__(self) -> None:
        require_object("layout.input_name", self.input_name, str)
        require_choice("layout.batch", self.batch, (None, 1))
        require_bool("layout.channels_last", self.channels_last)


@contextmanager
def errors_of(what: str) -> Iterator[None]:
    """Turn errors of a runtime or a parser, which have any type, into a WeightsError that begins with `what`."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__  # the first line may only say where it happened
        raise WeightsError(f"{what}: {reason[:200]}") from error


@dataclass(frozen=True)
class ExportDescription:
    """Describes the inputs and outputs of an exported network.

    Attributes:
        version: version of this package.
        class_names: names of the classes 1..C.
        image_size: (height, width) of the network's input in pixels.
        normalization: normalisation of colours 0..255, inside the file or to be applied before.
        preprocessing: whether the file takes uint8 images, and resizes and normalises them. Letterboxed images are only
            normalised.
        nms: whether the file applies thresholds and NMS. Otherwise it returns all decoded boxes and their scores.
        postprocess: post-processing, inside the file or to be applied to its outputs.
        quantization: quantisation of weights and activations. None for float32.
        resize: how images are resized to the input. With `preprocessing` the file does the stretching. Letterboxing is
            never inside the file, and boxes are then relative to the input.
        layout: name of the input, and number of images.
    """

    version: str
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    normalization: Normalization
    preprocessing: bool
    nms: bool
    postprocess: PostProcess
    quantization: str | None = None
    resize: ResizeMode = field(default_factory=Stretch)
    layout: Layout = Layout()

    def __post_init__(self) -> None:
        require_object("version", self.version, str)
        require_bool("preprocessing", self.preprocessing)
        require_bool("nms", self.nms)
        require_choice("quantization", self.quantization, (None, "int8"))
        require_number("pixels of image_size", math.prod(self.image_size), 1, MOST_PIXELS)

    def as_input(self, images: Tensor) -> Tensor:
        """Turn images `[B, 3, H, W]`, RGB, 0..255, of the network's size into the file's input."""
        if not self.preprocessing:
            prepared = self.normalization(images.float())
            return (prepared.permute(0, 2, 3, 1) if self.layout.channels_last else prepared).contiguous()
        pixels = images.round().clamp(0, 255).to(torch.uint8) if images.is_floating_point() else images
        return pixels.permute(0, 2, 3, 1).contiguous()

    @property
    def resizes(self) -> bool:
        """Whether the file takes images of any size."""
        return self.preprocessing and isinstance(self.resize, Stretch)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return DETECTIONS if self.nms else PREDICTIONS

    def as_metadata(self) -> dict[str, str]:
        """Return the description as JSON texts by name, with an explanation of inputs and outputs."""
        height, width = self.image_size
        order = "BGR" if self.normalization.bgr else "RGB"
        fitted = "the image warped to this size"
        boxes = "x1, y1, x2, y2 as shares of the image's width and height"
        if isinstance(self.resize, Letterbox):
            fitted = (
                f"the image scaled by s = min({height} / its height, {width} / its width), put in the top left corner"
                f", the rest filled with the RGB colour {list(self.resize.fill)}"
            )
            boxes = (
                f"x1, y1, x2, y2 as shares of {width} x {height}; as shares of the image: x * {width} / round(s * "
                f"its width), y * {height} / round(s * its height), clipped to 0..1"
            )
        batch = self.layout.batch or "B"
        if self.resizes:
            taken = f"uint8 [{batch}, H, W, 3], RGB, any height and width; all of a batch of one size"
        elif self.preprocessing:
            taken = f"uint8 [{batch}, {height}, {width}, 3], RGB: {fitted}"
        else:
            shape = f"{batch}, {height}, {width}, 3" if self.layout.channels_last else f"{batch}, 3, {height}, {width}"
            taken = (
                f"float32 [{shape}]: {fitted}, colours of 0..255 minus colour_mean over "
                f"colour_std (both of red, green, blue), then channels in the order {order}"
            )
        if self.nms:
            outputs = {
                "boxes": f"float32 [B, D, 4]: {boxes}, within [0, 1]; zeros from num_detections on",
                "scores": "float32 [B, D], descending; zeros from num_detections on",
                "labels": "int64 [B, D], 1..C, the place in class_names counted from 1; zeros from num_detections on",
                "num_detections": "int64 [B]",
            }
        else:
            outputs = {
                "boxes": f"float32 [B, K, 4]: {boxes}, decoded, not clipped",
                "scores": "float32 [B, K, C + 1], after softmax; column 0 is the background",
            }
        values = {
            MARKER: self.version,
            "class_names": self.class_names,
            "image_size": self.image_size,
            "colour_mean": self.normalization.mean,
            "colour_std": self.normalization.std,
            "colour_order": order,
            "preprocessing": self.preprocessing,
            "nms": self.nms,
            "postprocess": self.postprocess.settings(),
            "quantization": self.quantization,
            "resize": plain_mode(self.resize),
            "layout": asdict(self.layout),
            "inputs": {self.layout.input_name: taken},
            "outputs": outputs,
        }
        return {name: json.dumps(value) for name, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: Path) -> "ExportDescription":
        """Parse the result of `as_metadata`; the path of the file is for messages.

        Raises:
            WeightsError: this package did not write the file, or a value is invalid.
        """
        with errors_of(f"{path}: its metadata cannot be used"):
            if MARKER not in metadata:
                raise WeightsError(
                    f"{path} was not written by this package's export: its metadata have no entry '{MARKER}'; it was "
                    "not run"
                )
            texts = {"resize": "null", "layout": "{}", **metadata}  # older files do not have these

            def entry(name: str) -> Any:
                if name not in texts:
                    raise WeightsError(f"{path}: its metadata entry '{name}' is missing")
                return json.loads(texts[name])

            require_choice("colour_order", entry("colour_order"), ("RGB", "BGR"))
            return cls(
                version=entry(MARKER),
                class_names=as_class_names(entry("class_names")),
                image_size=as_height_width(entry("image_size"), "image_size"),
                normalization=Normalization(
                    entry("colour_mean"), entry("colour_std"), bgr=entry("colour_order") == "BGR"
                ),
                preprocessing=entry("preprocessing"),
                nms=entry("nms"),
                postprocess=PostProcess.from_settings(entry("postprocess")),
                quantization=entry("quantization"),
                resize=as_resize_mode(entry("resize")),
                layout=Layout(**entry("layout")),
            )


def description_file(path: Path) -> Path:
    """Return the path of the description: `detector.tflite.json` for `detector.tflite`."""
    return path.with_name(f"{path.name}.json")


def network_files(path: Path) -> list[Path]:
    """Return all files of the network `path`: itself, ncnn's weights, and a separate description last."""
    weights = [path.with_suffix(".bin")] if path.suffix == ".param" else []
    return [path, *weights, description_file(path)] if path.suffix in (".tflite", ".param") else [path]


def write_description(path: Path, description: ExportDescription) -> None:
    """Write the description of the network `path` beside it."""
    values = {name: json.loads(text) for name, text in description.as_metadata().items()}
    description_file(path).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_description(path: Path) -> ExportDescription:
    """Read the description of the network `path`.

    Raises:
        WeightsError: a file is missing, or the description is damaged or of another program.
    """
    for needed in network_files(path):
        require_file(needed)
    file = description_file(path)
    with errors_of(f"{file} is damaged"):
        values = json.loads(file.read_text(encoding="utf-8"))
        metadata = {name: json.dumps(value) for name, value in values.items()}
    return ExportDescription.from_metadata(metadata, file)
