"""Matching, multibox loss and its gradient, compared with torchvision's SSD."""

import torch
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from ssd_lightning.losses import ArgmaxMatcher, MultiBoxLoss
from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.ops.priors import SSD300_VOC, make_priors
from ssd_lightning.timing import Comparison, time_pairs
from ssd_lightning.types import SSDOutput, Target

IMAGE_SIZE = 300


def compare_loss(
    *,
    pairs: int,
    device: torch.device,
    batch_size: int = 32,
    num_classes: int = 20,
    boxes: tuple[int, int] = (1, 6),
) -> list[Comparison]:
    """Compare matching, loss and backward pass of one batch, given the network's output.

    Args:
        pairs: number of timings of each side.
        device: device of the output.
        batch_size: B.
        num_classes: C, without the background.
        boxes: smallest and largest number of ground-truth boxes of an image.
    """
    priors = make_priors(SSD300_VOC, IMAGE_SIZE).to(device)
    output = random_output(batch_size, priors, num_classes)
    targets = random_targets(batch_size, num_classes, boxes)
    # The paper's loss as in torchvision, whose matcher lets several objects share a best prior.
    loss = MultiBoxLoss(matcher=ArgmaxMatcher()).train()
    peer = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=num_classes + 1)
    # Normalised boxes for both sides, since rounding in pixels would create other ties of overlap.
    peer_priors = [cxcywh_to_xyxy(priors)] * batch_size
    peer_targets = [{name: target[name].to(device) for name in ("boxes", "labels")} for target in targets]
    results: dict[str, Tensor] = {}

    def ours() -> None:
        losses = loss(output, targets)
        results["ours"] = losses["loss_box"] + losses["loss_cls"]
        _backward(results["ours"], output)

    def theirs() -> None:
        results["theirs"] = torchvision_loss(peer, output, peer_priors, peer_targets)
        _backward(results["theirs"], output)

    ours_s, theirs_s = time_pairs(ours, theirs, pairs=pairs, device=device)
    low, high = boxes
    return [
        Comparison(
            part="loss",
            setting=f"match + loss + backward, batch {batch_size}, {len(priors)} priors, {num_classes} classes, "
            f"{low}-{high} boxes, {device.type}",
            peer="torchvision SSD",
            ours=ours_s,
            theirs=theirs_s,
            bar=1.5,
            note=f"losses {results['ours'].item():.6f} and {results['theirs'].item():.6f}",
        )
    ]


def random_output(batch_size: int, priors_cxcywh: Tensor, num_classes: int) -> SSDOutput:
    """Draw a random output of an untrained network that requires gradients."""
    generator = torch.Generator().manual_seed(0)
    offsets = torch.randn(batch_size, len(priors_cxcywh), 4, generator=generator)
    logits = torch.randn(batch_size, len(priors_cxcywh), num_classes + 1, generator=generator)
    device = priors_cxcywh.device
    return SSDOutput(offsets.to(device).requires_grad_(), logits.to(device).requires_grad_(), priors_cxcywh)


def random_targets(batch_size: int, num_classes: int, boxes: tuple[int, int]) -> list[Target]:
    """Draw targets with `boxes[0]` to `boxes[1]` objects of 5 to 55 % of the image's sides, on the CPU."""
    generator = torch.Generator().manual_seed(1)
    targets = []
    for index in range(batch_size):
        count = int(torch.randint(boxes[0], boxes[1] + 1, (), generator=generator))
        sides = torch.rand(count, 2, generator=generator) * 0.5 + 0.05
        corners = torch.rand(count, 2, generator=generator) * (1 - sides)
        targets.append(
            Target(
                boxes=torch.cat((corners, corners + sides), dim=1),
                labels=torch.randint(1, num_classes + 1, (count,), generator=generator),
                difficult=torch.zeros(count, dtype=torch.bool),
                image_id=str(index),
                size_px=(IMAGE_SIZE, IMAGE_SIZE),
            )
        )
    return targets


def torchvision_loss(
    network: SSD, output: SSDOutput, priors_xyxy: list[Tensor], targets: list[dict[str, Tensor]]
) -> Tensor:
    """Match and compute the loss as in the training branch of torchvision's `SSD.forward`, with its own parts."""
    matched = [
        network.proposal_matcher(box_iou(target["boxes"], priors))
        for priors, target in zip(priors_xyxy, targets, strict=True)
    ]
    heads = {"bbox_regression": output.box_offsets, "cls_logits": output.class_logits}
    losses = network.compute_loss(targets, heads, priors_xyxy, matched)
    return losses["bbox_regression"] + losses["classification"]


def _backward(total: Tensor, output: SSDOutput) -> None:
    output.box_offsets.grad = output.class_logits.grad = None
    total.backward()
