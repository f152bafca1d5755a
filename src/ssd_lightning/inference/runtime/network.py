"""Base class of exported networks for `Detector`."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ssd_lightning.errors import WeightsError
from ssd_lightning.inference.runtime.description import PREDICTIONS, ExportDescription, errors_of
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.boxes import xyxy_to_cxcywh
from ssd_lightning.types import Detections, SSDOutput


class ExportedNetwork(nn.Module):
    """A network that runs in another runtime. It can detect, but its weights are not accessible.

    Inputs and outputs are on `device`; `path` is for messages. Subclasses open a file by its path and a device.

    Raises:
        ConfigurationError: a package that the subclass needs is not installed.
        WeightsError: a file is missing, damaged or not written by this package, or the runtime rejects it.
    """

    runtime: ClassVar[str]
    """Name of the runtime, for messages."""

    def __init__(self, path: Path, description: ExportDescription, device: torch.device) -> None:
        super().__init__()
        self.path = path
        self.description = description
        self.device = device
        self.image_size = description.image_size
        self.num_classes = len(description.class_names)
        self._turn = Lock()

    def run(self, inputs: Tensor) -> list[Tensor]:
        """Run the network on the file's input. Inputs and outputs are on `device`.

        Raises:
            WeightsError: the file fails, or its outputs do not match its description.
        """
        # Most runtimes keep the inputs and outputs of one call: threads that share a detector would mix them.
        with errors_of(f"{self.path} failed in {self.runtime}"), self._turn:
            outputs = [one if isinstance(one, Tensor) else torch.tensor(one) for one in self._run(inputs)]
        self._check(outputs, len(inputs))
        return outputs

    @abstractmethod
    def _run(self, inputs: Tensor) -> Sequence[Any]:
        """Return the outputs as tensors, or as arrays that the next call may change."""

    def detect(self, images: Tensor, postprocess: PostProcess) -> list[Detections]:
        """Detect in images `[B, 3, H, W]`, RGB, 0..255, uint8 or float, of the network's input size.

        The post-processing has no effect if the file applies NMS.

        Raises:
            ValueError: the images have a different size.
            WeightsError: the file fails, or its outputs do not match its description.
        """
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError(f"the network is made for {self.image_size} images, got {tuple(images.shape[-2:])}")
        if len(images) == 0:
            return []
        return self.detect_inputs(self.description.as_input(images.to(self.device)), postprocess)

    def detect_inputs(self, inputs: Tensor, postprocess: PostProcess) -> list[Detections]:
        """Detect in a batch in the file's own input format. See `detect`."""
        found: list[Detections] = []
        for part in inputs.split(self.description.layout.batch or len(inputs)):
            outputs = self.run(part)
            if self.description.nms:
                *padded, counts = outputs
                for boxes, scores, labels, count in zip(*padded, counts.tolist(), strict=True):
                    found.append(Detections(boxes=boxes[:count], scores=scores[:count], labels=labels[:count]))
            else:
                for boxes, scores in zip(*outputs, strict=True):
                    found += postprocess(_as_output(boxes, scores))
        return found

    def raw_output(self, image: Tensor) -> SSDOutput:
        """Run a file without NMS on one image `[1, 3, H, W]`, see `detect`."""
        [boxes], [scores] = self.run(self.description.as_input(image.to(self.device)))
        return _as_output(boxes, scores)

    def _check(self, outputs: Sequence[Tensor], batch: int) -> None:
        """Check that outputs match the description. Otherwise an invalid index would cause an error much later."""
        names = self.description.output_names
        if len(outputs) != len(names):
            raise WeightsError(f"{self.path} gave {len(outputs)} outputs instead of {', '.join(names)}")
        boxes, rest = outputs[0], outputs[2:]
        rows = boxes.shape[1] if boxes.ndim == 3 else 0
        classes = () if self.description.nms else (self.num_classes + 1,)
        shapes = ((batch, rows, 4), (batch, rows, *classes), (batch, rows), (batch,))
        for name, output, shape in zip(names, outputs, shapes, strict=False):
            if tuple(output.shape) != shape:
                raise WeightsError(f"{self.path}: its output {name} has shape {tuple(output.shape)}")
            if output.is_floating_point() != (name in PREDICTIONS):
                raise WeightsError(f"{self.path}: its output {name} has type {output.dtype}")
        if rest:
            labels, count = rest
            if ((labels < 0) | (labels > self.num_classes)).any() or ((count < 0) | (count > rows)).any():
                raise WeightsError(f"{self.path}: its output has labels or counts out of range")


def _as_output(boxes: Tensor, scores: Tensor) -> SSDOutput:
    """Express decoded boxes and scores of an image as the output of a network, for post-processing."""
    # Each box is its own prior with zero offsets. Softmax inverts the logarithm.
    return SSDOutput(torch.zeros_like(boxes)[None], scores.log()[None], xyxy_to_cxcywh(boxes))
