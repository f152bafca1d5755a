"""torchvision's SSD trained by a plain PyTorch loop: the other side of `bccd_against_torchvision.py`.

The augmentation, the warm-up over the first epoch and the optimiser `reference` are those of torchvision's
`references/detection` for these two networks, with the learning rate scaled to the batch.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, SequentialLR
from torchvision import tv_tensors
from torchvision.models.detection import ssd300_vgg16, ssdlite320_mobilenet_v3_large
from torchvision.transforms import v2

from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.types import Detections


@dataclass(frozen=True)
class Peer:
    """One network of torchvision, with the settings of its published training."""

    build: Callable[..., nn.Module]
    lr: float
    """Of the published batch."""
    batch_size: int
    """The published one, over all GPUs."""
    weight_decay: float
    cosine: bool
    """Else x .1 after 2/3 and 11/12 of the run."""
    colours_and_expansion: bool


PEERS = {
    "ssdlite320_mobilenet_v3_large": Peer(
        ssdlite320_mobilenet_v3_large,
        lr=0.15,
        batch_size=192,
        weight_decay=4e-5,
        cosine=True,
        colours_and_expansion=False,
    ),
    "ssd300_vgg16": Peer(
        ssd300_vgg16, lr=0.002, batch_size=32, weight_decay=5e-4, cosine=False, colours_and_expansion=True
    ),
}
MEAN_FILL = {tv_tensors.Image: (123, 117, 104), "others": 0}


def torchvision_augmentation(peer: Peer) -> v2.Compose:
    """Make torchvision's preset `ssd` or `ssdlite`: uint8 picture and boxes in, float picture in [0, 1] out."""
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


def make_optimizer(
    network: nn.Module, peer: Peer, *, name: str, lr: float | None, batch_size: int
) -> torch.optim.Optimizer:
    """Make `reference`, the SGD of the published training, or `adamw`."""
    if name == "reference":
        scaled = peer.lr * batch_size / peer.batch_size
        return torch.optim.SGD(network.parameters(), lr or scaled, momentum=0.9, weight_decay=peer.weight_decay)
    return torch.optim.AdamW(network.parameters(), lr or 2e-3, weight_decay=0.01)


def make_schedule(
    optimizer: torch.optim.Optimizer, *, cosine: bool, total_steps: int, warmup_steps: int
) -> LRScheduler:
    """Warm up linearly from a thousandth, then follow a cosine or torchvision's steps."""
    rest = total_steps - warmup_steps
    warmup = LinearLR(optimizer, start_factor=1e-3, total_iters=warmup_steps)
    after: LRScheduler = CosineAnnealingLR(optimizer, rest)
    if not cosine:
        after = MultiStepLR(optimizer, [round(total_steps * share) - warmup_steps for share in (2 / 3, 11 / 12)])
    return SequentialLR(optimizer, [warmup, after], [warmup_steps])


def train_torchvision(
    dataset: DetectionDataset,
    *,
    network: str,
    optimizer: str,
    lr: float | None,
    epochs: int,
    batch_size: int,
    seed: int,
    max_steps: int | None = None,
    on_epoch: Callable[[int, float, float], None] = lambda epoch, loss, seconds: None,
) -> nn.Module:
    """Train from random weights.

    Args:
        dataset: pictures without a transform.
        network: a key of `PEERS`.
        optimizer: `reference` or `adamw` (with a cosine).
        lr: learning rate; None is the published one scaled to the batch, or .002 for `adamw`, on BCCD better than .001.
        epochs: passes over the pictures; the last incomplete batch of each is left out.
        batch_size: pictures a step.
        seed: of weights, order and augmentation.
        max_steps: stop after so many steps.
        on_epoch: told the epoch, its mean loss and the seconds so far.
    """
    torch.manual_seed(seed)
    peer = PEERS[network]
    model = peer.build(weights=None, weights_backbone=None, num_classes=len(dataset.class_names) + 1)
    model = model.to(memory_format=torch.channels_last).train()
    augment = torchvision_augmentation(peer)
    samples = [dataset[index] for index in range(len(dataset))]
    steps = len(samples) // batch_size
    sgd = make_optimizer(model, peer, name=optimizer, lr=lr, batch_size=batch_size)
    schedule = make_schedule(
        sgd, cosine=peer.cosine or optimizer == "adamw", total_steps=epochs * steps, warmup_steps=steps
    )
    start, taken = time.perf_counter(), 0
    for epoch in range(epochs):
        order, total = torch.randperm(len(samples)), 0.0
        for step in range(steps):
            chosen = [_augmented(augment, *samples[i]) for i in order[step * batch_size : (step + 1) * batch_size]]
            losses = model([image for image, _ in chosen], [target for _, target in chosen])
            loss = sum(losses.values(), torch.zeros(()))
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            schedule.step()
            total, taken = total + loss.item(), taken + 1
            if taken == max_steps:
                return model.eval()
        on_epoch(epoch, total / steps, time.perf_counter() - start)
    return model.eval()


def _augmented(augment: v2.Compose, image: Tensor, target: dict) -> tuple[Tensor, dict[str, Tensor]]:
    height, width = image.shape[-2:]
    boxes = tv_tensors.BoundingBoxes(
        target["boxes"] * torch.tensor([width, height, width, height]), format="XYXY", canvas_size=(height, width)
    )
    image, changed = augment(tv_tensors.Image(image), {"boxes": boxes, "labels": target["labels"]})
    return image, changed


def torchvision_detector(model: nn.Module) -> Callable[[Sequence[Tensor]], list[Detections]]:
    """Wrap a trained model: pictures uint8 `[3, H, W]` in, normalised detections out."""
    return partial(_detect, model)


@torch.inference_mode()
def _detect(model: nn.Module, images: Sequence[Tensor]) -> list[Detections]:
    found = model([image / 255 for image in images])
    sizes = [torch.tensor([*image.shape[:0:-1], *image.shape[:0:-1]]) for image in images]
    return [
        Detections(boxes=one["boxes"] / size, scores=one["scores"], labels=one["labels"])
        for one, size in zip(found, sizes, strict=True)
    ]
