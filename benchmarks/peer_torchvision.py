"""torchvision's SSD trained by a plain PyTorch loop for a given time: sides of `real_sets.py`.

Networks, priors, augmentation and post-processing are torchvision's own; the augmentation is that of its
`references/detection` for the network. Images are decoded once and stay in memory.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.models import mobilenet_v2
from torchvision.models.detection import ssd300_vgg16, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteFeatureExtractorMobileNet, SSDLiteHead
from torchvision.transforms import v2

if TYPE_CHECKING:
    from ssd_lightning.data.dataset import DetectionDataset

WARMUP = 0.05
"""Share of the run in which the learning rate rises."""
MEAN_FILL = {tv_tensors.Image: (123, 117, 104), "others": 0}
SCORES = {"score_thresh": 0.001, "detections_per_img": 300}


def ssdlite320_mobilenet_v2(num_classes: int, weights: str) -> SSD:
    """Put torchvision's SSDLite on MobileNetV2, as `ssdlite320_mobilenet_v3_large` is made, from ImageNet weights.

    Args:
        num_classes: with the background.
        weights: torchvision's file of them.
    """
    network = mobilenet_v2(weights=None)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    features = network.features
    features[14].block = features[14].conv  # the first of stride 32, by the name that it has in MobileNetV3
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    backbone = SSDLiteFeatureExtractorMobileNet(features, 14, norm)
    priors = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)
    channels = [576, 1280, 512, 256, 256, 128]
    return SSD(
        backbone,
        priors,
        (320, 320),
        num_classes,
        head=SSDLiteHead(channels, priors.num_anchors_per_location(), num_classes, norm),
        nms_thresh=0.55,
        topk_candidates=300,
        **SCORES,
    )


@dataclass(frozen=True)
class Peer:
    """One network of torchvision, and how its reference augments.

    Args:
        build: makes it for a number of classes with the background, and a weights file or None.
        colours_and_expansion: the augmentation is torchvision's preset `ssd`; else `ssdlite`.
    """

    build: Callable[[int, Any], nn.Module]
    colours_and_expansion: bool = False


def _from_scratch(make: Callable[..., nn.Module], num_classes: int, weights: str | None) -> nn.Module:
    return make(weights=None, weights_backbone=None, num_classes=num_classes, **SCORES)


PEERS = {
    "ssdlite320_mobilenet_v2": Peer(ssdlite320_mobilenet_v2),
    "ssdlite320_mobilenet_v3_large": Peer(partial(_from_scratch, ssdlite320_mobilenet_v3_large)),
    "ssd300_vgg16": Peer(partial(_from_scratch, ssd300_vgg16), colours_and_expansion=True),
}


def augmentation(peer: Peer) -> v2.Compose:
    """Make torchvision's preset: uint8 image and boxes in, float image in [0, 1] out."""
    first = [v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill=MEAN_FILL)] if peer.colours_and_expansion else []
    return v2.Compose(
        [
            *first,
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(),
            v2.SanitizeBoundingBoxes(),
            v2.ToDtype(torch.float32, scale=True),
            v2.ToPureTensor(),
        ]
    )


def rate_factor(share: float) -> float:
    """Rise from a hundredth in the first twentieth of a run, then follow half a cosine to 0."""
    if share < WARMUP:
        return 0.01 + 0.99 * share / WARMUP
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (share - WARMUP) / (1 - WARMUP))))


def train(
    dataset: "DetectionDataset",
    *,
    peer: Peer,
    weights: str | None,
    lr: float,
    batch_size: int,
    seed: int,
    deadline: float,
    max_steps: int | None = None,
) -> tuple[nn.Module, int, int]:
    """Train by AdamW with a schedule that follows the clock.

    Args:
        dataset: images without a transform.
        peer: of `PEERS`.
        weights: file of the backbone's weights, where the peer takes one.
        lr: highest learning rate.
        batch_size: images of a step, fewer where the set has fewer.
        seed: of weights, order and augmentation.
        deadline: time of the clock at which training ends.
        max_steps: end earlier, after so many.

    Returns:
        The network, the steps that it made and the images of each.
    """
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = peer.build(len(dataset.class_names) + 1, weights)
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr, fused=True)
    samples = [_sample(*dataset[index]) for index in range(len(dataset))]
    batch_size = min(batch_size, len(samples))
    augment, batches = augmentation(peer), _batches(len(samples), batch_size)
    steps, total, step_seconds = 0, 0.0, 0.0
    begin = last_told = time.time()
    while (now := time.time()) + step_seconds < deadline and steps != max_steps:
        for group in optimizer.param_groups:
            group["lr"] = lr * rate_factor((now - begin) / (deadline - begin))
        chosen = [augment(*samples[index]) for index in next(batches)]
        losses = model(
            [image.to(device) for image, _ in chosen],
            [{name: tensor.to(device) for name, tensor in target.items()} for _, target in chosen],
        )
        loss = sum(losses.values(), torch.zeros((), device=device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps, total, step_seconds = steps + 1, total + loss.item(), time.time() - now
        if time.time() - last_told > 10:
            print(f"step {steps}: mean loss {total / steps:.3f}, {deadline - time.time():.0f} s left", file=sys.stderr)
            last_told = time.time()
    return model.eval(), steps, batch_size


def _sample(image: Tensor, target: dict[str, Any]) -> tuple[tv_tensors.Image, dict[str, Tensor]]:
    height, width = image.shape[-2:]
    boxes = target["boxes"] * torch.tensor([width, height, width, height])
    boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))
    return tv_tensors.Image(image), {"boxes": boxes, "labels": target["labels"]}


def _batches(images: int, batch_size: int) -> Iterator[list[int]]:
    """Shuffle in every epoch; the last incomplete batch of each is skipped."""
    while True:
        order = torch.randperm(images)
        yield from (batch.tolist() for batch in order.split(batch_size) if len(batch) == batch_size)


@torch.inference_mode()
def detect(model: nn.Module, image: Tensor) -> dict[str, list]:
    """Detect in one image, uint8 `[3, H, W]`: normalised boxes, scores and labels in plain lists."""
    device = next(model.parameters()).device
    found = {name: tensor.cpu() for name, tensor in model([image.to(device) / 255])[0].items()}
    size = torch.tensor([*image.shape[:0:-1], *image.shape[:0:-1]])
    return {**{name: tensor.tolist() for name, tensor in found.items()}, "boxes": (found["boxes"] / size).tolist()}
