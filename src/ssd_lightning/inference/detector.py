"""A trained detector: network, preprocessing, classes and post-processing in one object."""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args, overload

import torch
from torch import Tensor

from ssd_lightning.checks import require_choice
from ssd_lightning.data.image_io import ImageInput, as_rgb, as_sequence
from ssd_lightning.data.resize import ResizeMode, Stretch, as_resize_mode, plain_mode, undo_detections
from ssd_lightning.errors import ConfigurationError, UserError, WeightsError
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.inference.runtime.loading import load_exported
from ssd_lightning.inference.runtime.network import ExportedNetwork
from ssd_lightning.inference.runtime.safetensors_file import read_detector_file
from ssd_lightning.inference.tiling import Tiling, join_views
from ssd_lightning.models.config import from_config, to_config
from ssd_lightning.models.files import first_line, read_checkpoint
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.models.ssd import SSD
from ssd_lightning.ops.boxes import boxes_to_pixels
from ssd_lightning.ops.normalization import Normalization
from ssd_lightning.types import Detections, Placement, SSDOutput

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

NET_PREFIX = "net."
"""Where a checkpoint's `state_dict` holds the network."""
MOST_PRIORS = 10_000_000
"""Limit for a network read from a file. Published networks have 25 thousand priors."""


def detector_spec(
    net: SSD,
    class_names: Sequence[str],
    postprocess: PostProcess,
    resize: ResizeMode = Stretch(),  # noqa: B008  it cannot be changed
) -> dict[str, Any]:
    """Describe a detector without its weights, in plain containers."""
    return {
        "network": to_config(net),
        "class_names": list(class_names),
        "postprocess": postprocess.settings(),
        "resize": plain_mode(resize),
    }


class Detector:
    """Detect objects in images.

    Args:
        net: the network, or an exported one; it is put into evaluation mode.
        class_names: names of the classes 1..C.
        postprocess: turns the output of the network into detections.
        precision: precision of the convolutions. Weights, scores and boxes are always float32.
        resize: how images are resized to the network's input; it must be the same as in training.

    Attributes:
        data_settings: which images and classes it was trained on, as its checkpoint says; None if it does not.

    Raises:
        ConfigurationError: `precision` is unknown.
    """

    def __init__(
        self,
        net: SSD | ExportedNetwork,
        *,
        class_names: Sequence[str],
        postprocess: PostProcess = PostProcess(),  # noqa: B008  it cannot be changed
        precision: Precision = "float32",
        resize: ResizeMode = Stretch(),  # noqa: B008  it cannot be changed
    ) -> None:
        require_choice("precision", precision, PRECISIONS)
        # Images arrive as channels-last. This order makes convolutions faster on CPUs, and tensor cores require it.
        self.net = net.eval().to(memory_format=torch.channels_last)
        self.precision = precision
        self.resize = resize
        self.class_names = tuple(class_names)
        self.postprocess = postprocess
        self.tiling: Tiling | None = None
        self.data_settings: Any = None

    @property
    def network(self) -> SSD:
        """The network with its weights.

        Raises:
            WeightsError: the network is an exported one, whose weights are not accessible.
        """
        if isinstance(self.net, ExportedNetwork):
            raise WeightsError(f"{self.net.path} is an exported network; this needs the checkpoint that it came from")
        return self.net

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return self.net.image_size

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.net.device if isinstance(self.net, ExportedNetwork) else self.net.priors_cxcywh.device

    @torch.inference_mode()
    def detect(self, images: Tensor, placements: Sequence[Placement] | None = None) -> list[Detections]:
        """Detect in images that already have the network's input size.

        Args:
            images: `[B, 3, H, W]` RGB 0..255.
            placements: the part of the input that each original image takes, see `resize`. Boxes are relative to this
                part. None leaves them relative to the input.
        """
        found = self._detect_in_input(images)
        return found if placements is None else undo_detections(found, placements)

    def _detect_in_input(self, images: Tensor) -> list[Detections]:
        if isinstance(self.net, ExportedNetwork):
            return self.net.detect(images, self.postprocess)
        return self.postprocess(self.run(images))

    def run(self, images: Tensor) -> SSDOutput:
        """Run the network without post-processing.

        Args:
            images: `[B, 3, H, W]` RGB 0..255, of the network's input size; B = 1 for an exported file, which must be
                one without NMS.
        """
        if isinstance(self.net, ExportedNetwork):
            return self.net.raw_output(images)
        dtype = getattr(torch, self.precision)
        with torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "float32"):
            output: SSDOutput = self.net(images.to(self.device, non_blocking=True))
        return output

    # For the type checker, a path given as text is also a sequence of paths.
    @overload
    def __call__(self, images: ImageInput, *, batch_size: int = 64) -> ImageDetections: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Sequence[ImageInput], *, batch_size: int = 64) -> list[ImageDetections]: ...
    def __call__(
        self, images: ImageInput | Sequence[ImageInput], *, batch_size: int = 64
    ) -> ImageDetections | list[ImageDetections]:
        """Detect in images of any size.

        Args:
            images: one image, or a sequence of images of any supported type: paths, PIL images, uint8 arrays
                `[H, W, 3]` RGB and uint8 tensors `[3, H, W]`; see `data.image_io.Image`.
            batch_size: number of images, or of tiles, in one forward pass.

        Returns:
            Detections in pixels of the original image: one object for one image, a list for a sequence.

        Raises:
            DataError: an image cannot be read, or has another type or shape.
        """
        given, is_one = as_sequence(images)
        found: list[ImageDetections] = []
        for start in range(0, len(given), batch_size):
            part = given[start : start + batch_size]
            found += self._detect_batch(part) if self.tiling is None else self._detect_tiled(part, batch_size)
        return found[0] if is_one else found

    def _detect_tiled(self, given: Sequence[ImageInput], batch_size: int) -> list[ImageDetections]:
        assert self.tiling is not None
        images = [as_rgb(one) for one in given]
        views = [self.tiling.views((image.shape[0], image.shape[1])) for image in images]
        pairs = zip(images, views, strict=True)
        crops = [image[y1:y2, x1:x2] for image, windows in pairs for x1, y1, x2, y2 in windows]
        starts = range(0, len(crops), batch_size)
        found = iter([one for start in starts for one in self._detect_batch(crops[start : start + batch_size])])
        return [
            replace(joined, source=_source(one))
            for one, image, windows in zip(given, images, views, strict=True)
            for joined in [join_views(image, windows, list(islice(found, len(windows))), self.postprocess)]
        ]

    def _detect_batch(self, given: Sequence[ImageInput]) -> list[ImageDetections]:
        images = [as_rgb(one) for one in given]
        shape = (len(images), *self.image_size, 3)
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        placements = []
        for place, image in zip(batch.numpy(), images, strict=True):
            place[...], placement = self.resize.apply(image, self.image_size)
            placements.append(placement)
        found = self.detect(batch.permute(0, 3, 1, 2), placements)
        # Copy all detections from the device at once: every separate copy would synchronise with it.
        counts = [len(detections["scores"]) for detections in found]
        boxes, scores, labels = (
            torch.cat([detections[name] for detections in found]).cpu().split(counts)
            for name in ("boxes", "scores", "labels")
        )
        return [
            ImageDetections(
                image=image,
                boxes_xyxy_px=boxes_to_pixels(boxes[index], image.shape[:2]).numpy(),
                scores=scores[index].numpy(),
                labels=labels[index].numpy(),
                class_names=self.class_names,
                source=_source(one),
            )
            for index, (one, image) in enumerate(zip(given, images, strict=True))
        ]

    def with_tiles(self, tiles: int, overlap: float = 0.2, *, whole_image: bool = True) -> "Detector":
        """Return a detector that cuts images into tiles, for small objects in large images. It shares the network.

        `detect` and `run`, which take images of the network's input size, do not cut them. See `Tiling` for the
        arguments and errors.
        """
        tiled = copy.copy(self)
        tiled.tiling = Tiling(tiles, overlap, whole_image)
        return tiled

    def use_postprocess(self, **settings: Any) -> None:
        """Change settings of the post-processing.

        Raises:
            ConfigurationError: a setting is unknown or invalid, or an exported file contains its own post-processing.
        """
        if settings and isinstance(self.net, ExportedNetwork) and self.net.description.nms:
            raise ConfigurationError(
                f"{', '.join(settings)} cannot be changed: {self.net.path} has its NMS inside; export it with nms=false"
            )
        self.postprocess = PostProcess.from_settings({**self.postprocess.settings(), **settings})

    def save(self, path: Path | str) -> None:
        """Write a file that `load` reads: weights and plain containers only."""
        weights = {f"{NET_PREFIX}{name}": tensor for name, tensor in self.network.state_dict().items()}
        spec = detector_spec(self.network, self.class_names, self.postprocess, self.resize)
        torch.save({"detector": spec, "state_dict": weights, "data": self.data_settings}, path)

    def push_to_hub(
        self,
        repository: str,
        *,
        folder: Path | str,
        private: bool = False,
        token: str | None = None,
        endpoint: str | None = None,
        **card: Any,
    ) -> str:
        """Write a folder with weights, configuration and a model card, and upload it to Hugging Face.

        Args:
            repository: `USER/NAME`; created if it is missing.
            folder: where the files are written.
            private: whether a new repository is private.
            token: access token; None for the one that `hf auth login` stored.
            endpoint: web address of the server; None for Hugging Face.
            card: arguments of `hub.save_folder` for the model card: `title`, `scores`, `scored_on`, `licence`, `image`.

        Returns:
            Web address of the upload.

        Raises:
            ConfigurationError: huggingface_hub is not installed.
            WeightsError: the detector is an exported file, or the upload failed.
        """
        from ssd_lightning.inference import hub

        hub.save_folder(self, Path(folder), **{"title": repository.rpartition("/")[2], **card})
        return hub.push_folder(Path(folder), repository, private=private, token=token, endpoint=endpoint)

    @classmethod
    def from_pretrained(
        cls,
        repository: Path | str,
        *,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
        endpoint: str | None = None,
    ) -> "Detector":
        """Download a detector from Hugging Face, or read it from a folder that `hub.save_folder` wrote.

        Args:
            repository: `USER/NAME`, or the folder.
            revision: branch, tag or commit.
            device: device of the network.
            precision: precision of the convolutions.
            endpoint: web address of the server; None for Hugging Face.

        Raises:
            ConfigurationError: huggingface_hub is not installed.
            WeightsError: there is no such repository, or its weights are not those of a detector.
        """
        from ssd_lightning.inference import hub

        return cls.load(hub.fetch_weights(str(repository), revision=revision, endpoint=endpoint), device, precision)

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu", precision: Precision = "float32") -> "Detector":
        """Read a detector from a training checkpoint, from what `save` wrote or from an exported file.

        No configuration is needed. A TorchScript file is a program: see `runtime.torchscript_network`.

        Args:
            path: the file, or a run directory. In a directory the best checkpoint is used, else the last.
            device: device of the network.
            precision: precision of the convolutions.

        Raises:
            ConfigurationError: `precision` is unknown, or differs from that of an exported file.
            WeightsError: the file is missing, is not a checkpoint of this package, needs unpickling, or its weights
                do not fit the network that it describes.
        """
        path = find_checkpoint(Path(path))
        exported = load_exported(path, device, precision)
        if exported is not None:
            description = exported.description
            return cls(
                exported,
                class_names=description.class_names,
                postprocess=description.postprocess,
                resize=description.resize,
            )
        is_safetensors = path.suffix == ".safetensors"
        checkpoint = read_detector_file(path, prefix=NET_PREFIX) if is_safetensors else read_checkpoint(path)
        spec = checkpoint.get("detector")
        if not isinstance(spec, dict) or not {"network", "class_names", "postprocess"} <= spec.keys():
            keys = ", ".join(list(map(str, checkpoint))[:5])
            raise WeightsError(f"{path} does not describe a detector: expected the key 'detector', found {keys}, ...")
        weights = checkpoint.get("state_dict")
        net = _build_network(spec["network"], weights if isinstance(weights, dict) else {}, path)
        class_names, settings = spec["class_names"], spec["postprocess"]
        if not isinstance(class_names, list) or not all(isinstance(name, str) for name in class_names):
            raise WeightsError(f"{path} needs a list of class names, found {_shortened(class_names)}")
        if len(class_names) != net.num_classes:
            raise WeightsError(f"{path} names {len(class_names)} classes for a network of {net.num_classes} classes")
        with _errors_naming(path):
            postprocess = PostProcess.from_settings(settings)
            resize = as_resize_mode(spec.get("resize"))  # missing in older files, which stretch images
        detector = cls(
            net.to(device),
            class_names=class_names,
            postprocess=postprocess,
            precision=precision,
            resize=resize,
        )
        detector.data_settings = checkpoint.get("data")
        return detector


def _source(given: ImageInput) -> str | None:
    return os.fspath(given) if isinstance(given, str | os.PathLike) else None


def _build_network(spec: Any, weights: Mapping[str, Any], path: Path) -> SSD:
    """Build the network that a file describes, and load its weights.

    It is built on the meta device first: a description of a few bytes may ask for terabytes.
    """
    with _errors_naming(path):
        with torch.device("meta"):
            planned = from_config(spec)
        if not isinstance(planned, SSD):
            raise WeightsError(f"it describes a {type(planned).__name__}, not a network")
        if not isinstance(planned.normalization, Normalization):
            raise WeightsError(f"its normalization is {_shortened(planned.normalization)}")
        if len(planned.priors_cxcywh) > MOST_PRIORS:
            raise WeightsError(f"its network has {len(planned.priors_cxcywh):,} priors, more than {MOST_PRIORS:,}")
    _fitting_weights(planned, weights, path)
    with _errors_naming(path):
        net = from_config(spec)
        if not net.priors_cxcywh.isfinite().all():
            raise WeightsError("its priors are not finite")
    load_weights(net, weights, path)
    return net


@contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise WeightsError(f"{path}: {error}") from error
    except Exception as error:  # wrong sizes and types raise nearly any error
        raise WeightsError(f"{path} describes a network that cannot be built: {first_line(error)[:200]}") from error


def _shortened(value: Any) -> str:
    return f"{value!r:.100}"


def find_checkpoint(path: Path, order: Sequence[str] = ("best", "last")) -> Path:
    """Resolve a checkpoint file, or a run directory, where the first existing name in `order` is used.

    Raises:
        WeightsError: there is no checkpoint.
    """
    if path.is_dir():
        candidates = [
            *(path / "checkpoints" / f"{name}.ckpt" for name in order),
            *sorted(path.glob("*.ckpt")),
        ]
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
        if found is None:
            raise WeightsError(f"{path} contains neither checkpoints/best.ckpt nor checkpoints/last.ckpt")
        return found
    if not path.is_file():
        raise WeightsError(f"there is no checkpoint {path}")
    return path


def load_weights(net: SSD, state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Load all weights of a checkpoint into a network.

    Raises:
        WeightsError: names or shapes differ; the message names the first few.
    """
    net.load_state_dict(_fitting_weights(net, state_dict, path))


def _fitting_weights(net: SSD, state_dict: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the network's weights from a checkpoint, without the key prefix."""
    tensors = {str(name): value for name, value in state_dict.items() if isinstance(value, Tensor)}
    given = {name.removeprefix(NET_PREFIX): value for name, value in tensors.items() if name.startswith(NET_PREFIX)}
    wanted = net.state_dict()
    problems = [f"{name} is missing" for name in wanted.keys() - given.keys()]
    problems += [f"{name} is unknown" for name in given.keys() - wanted.keys()]
    problems += [
        f"{name} has shape {tuple(given[name].shape)}, the network needs {tuple(wanted[name].shape)}"
        for name in wanted.keys() & given.keys()
        if given[name].shape != wanted[name].shape
    ]
    # A number stored with strides of 0 can have any shape: a tiny file could ask for a network of terabytes.
    problems += [
        f"{name} has fewer numbers than its shape {tuple(value.shape)}"
        for name, value in given.items()
        if value.layout != torch.strided or value.untyped_storage().nbytes() < value.nbytes
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:3])
        raise WeightsError(f"{path} does not fit its network in {len(problems)} of {len(wanted)} weights: {shown}")
    return given
