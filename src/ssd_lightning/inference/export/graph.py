"""A detector as one function of tensors, for both exporters."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssd_lightning import __version__
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.runtime.description import ExportDescription, Layout
from ssd_lightning.models.ssd import SSD
from ssd_lightning.ops.boxes import clip_boxes, cxcywh_to_xyxy
from ssd_lightning.ops.coder import decode
from ssd_lightning.ops.normalization import IDENTITY, TORCHVISION_SSDLITE, Normalization

DETECTNET: Mapping[str, Any] = {
    "preprocessing": False,
    "nms": False,
    "layout": Layout("input_0", batch=1),
    "normalization": TORCHVISION_SSDLITE,  # colours from -1 to 1
}
"""Arguments of `describe_export` for detectNet of NVIDIA's jetson-inference, which stretches images and applies NMS."""


def describe_export(
    detector: Detector,
    *,
    preprocessing: bool,
    nms: bool,
    layout: Layout = Layout(),  # noqa: B008  it cannot be changed
    normalization: Normalization | None = None,
) -> ExportDescription:
    """Create the description of an export of a checkpoint's detector. See `ExportDescription` for the arguments.

    The `normalization` is that of the input, without `preprocessing`; None is that of the network.

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
        normalization=normalization or detector.network.normalization,
        preprocessing=preprocessing,
        nms=nms,
        postprocess=detector.postprocess,
        resize=detector.resize,
        layout=layout,
    )


class ExportGraph(nn.Module):
    """Maps images to boxes, using only tensors. See `ExportDescription` for inputs and outputs.

    `nms` is the form of `graph_nms.graph_nms` that the exporter supports.
    """

    def __init__(self, net: SSD, description: ExportDescription, nms: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.extractor = net.extractor
        self.head = net.head
        self.description = description
        self._nms = nms
        self._normalization = net.normalization
        self.priors_cxcywh: Tensor
        self.colour_scale: Tensor
        self.colour_shift: Tensor
        # Buffers move with the graph. Tensors created in `forward` would be exported with a fixed device.
        self.register_buffer("priors_cxcywh", net.priors_cxcywh.float())
        # One multiplication and one sum for both normalisations. onnx2tf 1.29 converts two of each wrongly.
        given = IDENTITY if description.preprocessing else description.normalization
        given_mean, given_std, net_mean, net_std = (
            torch.tensor(values, dtype=torch.float64, device=net.priors_cxcywh.device).view(1, 3, 1, 1)
            for values in (given.mean, given.std, net.normalization.mean, net.normalization.std)
        )
        self.register_buffer("colour_scale", (given_std / net_std).float())
        self.register_buffer("colour_shift", ((given_mean - net_mean) / net_std).float())

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Detect in the input that the description defines."""
        postprocess = self.description.postprocess
        box_offsets, class_logits = self.head(self.extractor(self.prepared(inputs)))
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
            postprocess.box_voting,
        )

    def prepared(self, inputs: Tensor) -> Tensor:
        """Turn the input into that of the network: resized, unless it is letterboxed, and normalised.

        `Detector` resizes with OpenCV, which uses fixed-point numbers and rounds to bytes. This function does not
        round and differs by less than 1 of 255. An image of the network's size is not changed.
        """
        if self.description.preprocessing:
            colours = inputs.permute(0, 3, 1, 2).float()
            if self.description.resizes:
                colours = interpolate(colours, size=self.description.image_size, mode="bilinear", align_corners=False)
        elif self.description.normalization == self._normalization:
            return inputs
        else:
            colours = inputs
        images = colours * self.colour_scale + self.colour_shift
        # ncnn 1.0.20261020 has no layer for `flip`.
        return torch.cat(images.split(1, dim=1)[::-1], dim=1) if self._normalization.bgr else images


def example_input(description: ExportDescription, device: torch.device) -> Tensor:
    """Create an input for tracing. No dynamic dimension is 1, because exporters treat 1 as a constant."""
    batch = description.layout.batch or 2
    height, width = description.image_size
    if description.preprocessing:
        if description.resizes:  # differs from the network's size, so that the size stays dynamic
            height, width = height + 16, width + 24
        return torch.zeros(batch, height, width, 3, dtype=torch.uint8, device=device)
    return torch.zeros(batch, 3, height, width, device=device)


def dynamic_axes(description: ExportDescription) -> dict[int, Any]:
    """Return the dynamic axes of the input."""
    names = {} if description.layout.batch else {0: "batch"}
    if description.resizes:
        names |= {1: "height", 2: "width"}
    return {axis: torch.export.Dim(name) for axis, name in names.items()}
