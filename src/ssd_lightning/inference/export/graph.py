"""A detector as one function of tensors, for both exporters."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssd_lightning import __version__
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.runtime.description import ExportDescription
from ssd_lightning.models.ssd import SSD
from ssd_lightning.ops.boxes import clip_boxes, cxcywh_to_xyxy
from ssd_lightning.ops.coder import decode

GraphNMS = Callable[[Tensor, Tensor, float, float, int, int, bool], tuple[Tensor, Tensor, Tensor, Tensor]]


def describe_export(detector: Detector, *, preprocessing: bool, nms: bool) -> ExportDescription:
    """Create the description of an export.

    Raises:
        ConfigurationError: the detector's NMS cannot be part of a graph.
        WeightsError: the detector is itself an exported file.
    """
    if nms and detector.postprocess.soft_nms is not None:
        raise ConfigurationError(
            f"postprocess.soft_nms is '{detector.postprocess.soft_nms}', which a graph cannot contain; set "
            "postprocess.soft_nms=null, or nms=false and apply Soft-NMS after the graph"
        )
    return ExportDescription(
        version=__version__,
        class_names=detector.class_names,
        image_size=detector.image_size,
        normalization=detector.network.normalization,
        preprocessing=preprocessing,
        nms=nms,
        postprocess=detector.postprocess,
        resize=detector.resize,
    )


class ExportGraph(nn.Module):
    """Maps images to boxes, using only tensors. See `ExportDescription` for inputs and outputs.

    Args:
        net: the network, in evaluation mode.
        description: what the graph contains.
        nms: the form of `graph_nms.graph_nms` that the exporter supports.
    """

    def __init__(self, net: SSD, description: ExportDescription, nms: GraphNMS) -> None:
        super().__init__()
        self.extractor = net.extractor
        self.head = net.head
        self.description = description
        self._nms = nms
        self.priors_cxcywh: Tensor
        self.colour_mean: Tensor
        self.colour_std: Tensor
        # Buffers move with the graph. Tensors created in `forward` would be exported with a fixed device.
        self.register_buffer("priors_cxcywh", net.priors_cxcywh.float())
        for name in ("mean", "std"):
            values = torch.tensor(getattr(description.normalization, name), device=net.priors_cxcywh.device)
            self.register_buffer(f"colour_{name}", values.view(1, 3, 1, 1))

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Detect in the input that the description defines."""
        postprocess = self.description.postprocess
        images = self.prepared(inputs) if self.description.preprocessing else inputs
        box_offsets, class_logits = self.head(self.extractor(images))
        boxes_xyxy = cxcywh_to_xyxy(decode(box_offsets, self.priors_cxcywh, postprocess.variances))
        scores = class_logits.float().softmax(dim=-1)
        if not self.description.nms:
            return boxes_xyxy, scores
        if postprocess.clip_first:
            boxes_xyxy = clip_boxes(boxes_xyxy)
        return self._nms(
            boxes_xyxy,
            scores,
            float(postprocess.score_threshold),
            float(postprocess.iou_threshold),
            postprocess.top_k,
            postprocess.max_detections,
            postprocess.class_agnostic,
        )

    def prepared(self, inputs: Tensor) -> Tensor:
        """Resize uint8 `[B, H, W, 3]` to the network's size, unless it is letterboxed, and normalise it.

        `Detector` resizes with OpenCV, which uses fixed-point numbers and rounds to bytes. This function does not
        round and differs by less than 1 of 255. An image of the network's size is not changed.
        """
        images = inputs.permute(0, 3, 1, 2).float()
        if self.description.resizes:
            images = interpolate(images, size=self.description.image_size, mode="bilinear", align_corners=False)
        images = (images - self.colour_mean) / self.colour_std
        return images.flip(1) if self.description.normalization.bgr else images


def example_input(description: ExportDescription, device: torch.device, batch: int = 2) -> Tensor:
    """Create an input for tracing. No dimension is 1, because exporters treat 1 as a constant."""
    height, width = description.image_size
    if description.preprocessing:
        if description.resizes:  # differs from the network's size, so that the size stays dynamic
            height, width = height + 16, width + 24
        return torch.zeros(batch, height, width, 3, dtype=torch.uint8, device=device)
    return torch.zeros(batch, 3, height, width, device=device)


def dynamic_axes(description: ExportDescription) -> dict[int, Any]:
    """Return the dynamic axes of the input."""
    names = {0: "batch", 1: "height", 2: "width"} if description.resizes else {0: "batch"}
    return {axis: torch.export.Dim(name) for axis, name in names.items()}
