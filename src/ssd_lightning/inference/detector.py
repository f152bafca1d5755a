"""A trained detector: network, preprocessing, classes and post-processing in one object."""

import copy
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, overload

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.checks import require_choice, require_number, require_object
from ssd_lightning.data.annotation_checks import as_class_names
from ssd_lightning.data.image_io import ImageInput, as_rgb, as_sequence
from ssd_lightning.data.resize import ResizeMode, Stretch, as_resize_mode, undo_detections
from ssd_lightning.errors import ConfigurationError, WeightsError, listed
from ssd_lightning.inference.checkpoints import detector_spec, find_checkpoint, read_detector
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.inference.runtime.exported_files import Backend, open_exported
from ssd_lightning.inference.runtime.network import ExportedNetwork
from ssd_lightning.inference.tiling import Tiling, detect_in_tiles
from ssd_lightning.models.files import NET_PREFIX
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.models.ssd import SSD
from ssd_lightning.ops.boxes import boxes_to_pixels
from ssd_lightning.run_files import written_whole
from ssd_lightning.types import Detections, Placement, SSDOutput

log = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16", "float16"]


class Detector:
    """Detect objects in images.

    Args:
        net: the network, or an exported network. It is put into evaluation mode.
        class_names: names of the classes 1..C.
        postprocess: turns the output of the network into detections.
        precision: precision of the convolutions. Weights, scores and boxes are always float32.
        resize: how images are resized to the network's input, as in training: a `ResizeMode` or its name.
        data_settings: settings of the training for splits and classes; None if they are not known.

    Raises:
        ConfigurationError: `precision`, `postprocess` or `resize` is invalid, or the number of class names is not that
            of the network's classes.
        DataError: `class_names` is not a list of distinct names.
    """

    def __init__(
        self,
        net: SSD | ExportedNetwork,
        *,
        class_names: Sequence[str],
        postprocess: PostProcess = PostProcess(),  # noqa: B008  it cannot be changed
        precision: Precision = "float32",
        resize: ResizeMode | str = Stretch(),  # noqa: B008  it cannot be changed
        data_settings: Any = None,
    ) -> None:
        require_choice("precision", precision, get_args(Precision))
        require_object("postprocess", postprocess, PostProcess)
        self.class_names = as_class_names(class_names)
        if len(self.class_names) != net.num_classes:
            raise ConfigurationError(
                f"the network has {net.num_classes} classes, but there are {len(self.class_names)} class names: "
                f"{listed(self.class_names)}"
            )
        # Images arrive as channels-last. This order makes convolutions faster on CPUs, and tensor cores require it.
        self.net = net.eval().to(memory_format=torch.channels_last)
        self.precision = precision
        self.resize = as_resize_mode(resize)
        self.postprocess = postprocess
        self.tiling: Tiling | None = None
        self.data_settings = data_settings

    @property
    def network(self) -> SSD:
        """The network with its weights.

        Raises:
            WeightsError: the network is an exported one, which does not give access to its weights.
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

    @property
    def has_nms_inside(self) -> bool:
        """Whether the network is an exported file that applies NMS itself."""
        return isinstance(self.net, ExportedNetwork) and self.net.description.nms

    @torch.inference_mode()
    def detect(self, images: Tensor, placements: Sequence[Placement] | None = None) -> list[Detections]:
        """Detect objects in images that already have the network's input size.

        Args:
            images: `[B, 3, H, W]` RGB 0..255.
            placements: the part of the input that each original image fills, see `data.resize`. Boxes are normalised to
                this part. With None, they are normalised to the input.

        Returns:
            Detections of each image, with normalised boxes.
        """
        if isinstance(self.net, ExportedNetwork):
            found = self.net.detect(images, self.postprocess)
        else:
            found = self.postprocess(self.run(images))
        return found if placements is None else undo_detections(found, placements)

    def run(self, images: Tensor) -> SSDOutput:
        """Run the network without post-processing.

        Args:
            images: `[B, 3, H, W]` RGB 0..255, of the network's input size. For an exported file, B must be 1, and the
                file must have no NMS inside.
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
        """Detect objects in images of any size.

        Args:
            images: one image, or a sequence of images. An image is a path, a PIL image, a uint8 array `[H, W, 3]` RGB
                or a uint8 tensor `[3, H, W]`; see `data.image_io.ImageInput`.
            batch_size: number of images, or of tiles, in one forward pass.

        Returns:
            Detections in pixels of the original image: one object for one image, a list for a sequence.

        Raises:
            DataError: an image cannot be read, or has another type or shape.
            ConfigurationError: `batch_size` is not a positive whole number.
        """
        require_number("batch_size", batch_size, 1, whole=True)
        given, is_one = as_sequence(images)
        found: list[ImageDetections] = []
        for start in range(0, len(given), batch_size):
            part = given[start : start + batch_size]
            pixels = [as_rgb(one) for one in part]
            if self.tiling is None:
                detected = self._detect_batch(pixels)
            else:
                detected = detect_in_tiles(pixels, self.tiling, self._detect_batch, self.postprocess, batch_size)
            for one, source in zip(detected, part, strict=True):
                path = os.fspath(source) if isinstance(source, str | os.PathLike) else None
                found.append(replace(one, source=path))
        return found[0] if is_one else found

    def _detect_batch(self, images: Sequence[np.ndarray]) -> list[ImageDetections]:
        return self.in_pixels(images, self.detect(*self.prepare(images)))

    def prepare(self, images: Sequence[np.ndarray]) -> tuple[Tensor, list[Placement]]:
        """Resize images, uint8 `[H, W, 3]` RGB, for `detect`: uint8 `[B, 3, H, W]`, and the part that each fills."""
        shape = (len(images), *self.image_size, 3)
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        placements = []
        for place, image in zip(batch.numpy(), images, strict=True):
            place[...], placement = self.resize.apply(image, self.image_size)
            placements.append(placement)
        return batch.permute(0, 3, 1, 2), placements

    def in_pixels(self, images: Sequence[np.ndarray], found: Sequence[Detections]) -> list[ImageDetections]:
        """Express the normalised detections of images, uint8 `[H, W, 3]` RGB, in their pixels."""
        # Copy all detections from the device at once, because the host waits for every copy.
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
            )
            for index, image in enumerate(images)
        ]

    def with_tiles(self, tiles: int, overlap: float = 0.2, *, whole_image: bool = True) -> "Detector":
        """Return a detector that cuts images into tiles, for small objects in large images. It shares the network.

        Only calls of the detector cut images; `detect` and `run` do not. See `Tiling` for the arguments and errors.
        """
        tiled = copy.copy(self)
        tiled.tiling = Tiling(tiles, overlap, whole_image)
        return tiled

    def use_postprocess(self, **settings: Any) -> None:
        """Change settings of the post-processing, such as `score_threshold=0.4`. A setting without effect is logged.

        Raises:
            ConfigurationError: a setting is unknown or invalid, or an exported file contains its own post-processing.
        """
        if settings and self.has_nms_inside:
            raise ConfigurationError(
                f"{', '.join(settings)} cannot be changed: {self.net.path} has its NMS inside; export it with nms=false"
            )
        self.postprocess = PostProcess.from_settings({**self.postprocess.settings(), **settings})
        method = self.postprocess.soft_nms
        unused = "iou_threshold" if method == "gaussian" else "soft_nms_sigma"
        if unused in settings:
            log.warning("%s=%s is not used by postprocess.soft_nms=%s", unused, settings[unused], method or "null")

    def spec(self) -> dict[str, Any]:
        """Describe the detector without its weights, in plain containers."""
        return detector_spec(self.network, self.class_names, self.postprocess, self.resize)

    def save(self, path: Path | str) -> None:
        """Write a file that `load` reads, atomically: weights and plain containers only."""
        weights = {f"{NET_PREFIX}{name}": tensor for name, tensor in self.network.state_dict().items()}
        with written_whole(Path(path)) as partial:
            torch.save({"detector": self.spec(), "state_dict": weights, "data": self.data_settings}, partial)

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
        """Write weights, configuration and a model card, and upload these files to Hugging Face.

        Args:
            repository: `USER/NAME`; created if it is missing.
            folder: where the files are written. Other files in it are not uploaded.
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

        files = hub.save_folder(self, Path(folder), **{"title": repository.rpartition("/")[2], **card})
        return hub.push_folder(Path(folder), repository, files=files, private=private, token=token, endpoint=endpoint)

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
    def load(
        cls,
        path: Path | str,
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
        backend: Backend = "onnx",
    ) -> "Detector":
        """Read a detector from a training checkpoint, from what `save` wrote or from an exported file.

        No configuration is needed. A TorchScript file is a program: see `runtime.torchscript_network`.

        Args:
            path: the file, or a run directory. In a directory the best checkpoint is used, else the last.
            device: device of the network.
            precision: precision of the convolutions.
            backend: what runs an ONNX file: onnxruntime, OpenVINO or OpenCV.

        Raises:
            ConfigurationError: `precision` is unknown, or the file is an exported one and `precision` is not float32.
                `backend` is unknown, or it is not `onnx` and the file is not an ONNX file.
            WeightsError: the file is missing, is not a checkpoint of this package, contains more than tensors and plain
                containers, or its weights do not fit the network that it describes.
        """
        path = find_checkpoint(Path(path))
        if (net := open_exported(path, device, backend)) is not None:
            if precision != "float32":
                raise ConfigurationError(
                    f"precision is '{precision}', but {path} computes in the precision it was exported in"
                )
            about = net.description
            return cls(net, class_names=about.class_names, postprocess=about.postprocess, resize=about.resize)
        saved = read_detector(path)
        saved["net"].to(device)
        return cls(**saved, precision=precision)
