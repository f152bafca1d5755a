"""Softmax, decoding and NMS, compared with torchvision's SSD."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16
from torchvision.ops import box_iou

from ssd_lightning.benchmarking.loss import IMAGE_SIZE, random_output
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.ops.priors import SSD300_VOC, make_priors
from ssd_lightning.timing import Comparison, time_pairs
from ssd_lightning.types import Detections, SSDOutput


def compare_postprocess(
    *, pairs: int, device: torch.device, batch_size: int = 32, num_classes: int = 20
) -> list[Comparison]:
    """Compare the steps from the network's output to detections, for an untrained and a trained network.

    Args:
        pairs: number of timings of each side.
        device: device of the output.
        batch_size: B.
        num_classes: C, without the background.
    """
    priors = make_priors(SSD300_VOC, IMAGE_SIZE).to(device)
    outputs = {
        "random logits": random_output(batch_size, priors, num_classes),
        "trained-like logits": trained_like_output(batch_size, priors, num_classes),
    }
    # Its thresholds, 400 boxes per class and 200 per image, are those of the paper and of this project.
    peer = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=num_classes + 1).eval()
    anchors = [cxcywh_to_xyxy(priors) * IMAGE_SIZE] * batch_size
    sizes = [(IMAGE_SIZE, IMAGE_SIZE)] * batch_size
    results: dict[str, list] = {}
    comparisons = []
    for name, output in outputs.items():
        output = SSDOutput(*(tensor.detach() for tensor in output))
        head = {"bbox_regression": output.box_offsets, "cls_logits": output.class_logits}

        def ours(output: SSDOutput = output) -> None:
            results["ours"] = PostProcess(clip_first=True)(output)

        def theirs(head: dict[str, Tensor] = head) -> None:
            with torch.no_grad():
                results["theirs"] = peer.postprocess_detections(head, anchors, sizes)

        ours_s, theirs_s = time_pairs(ours, theirs, pairs=pairs, device=device)
        equal = sum(map(_equal, results["ours"], results["theirs"]))
        found = sum(len(detections["scores"]) for detections in results["ours"])
        comparisons.append(
            Comparison(
                part="postprocess",
                setting=f"{name}, batch {batch_size}, {len(priors)} priors, {num_classes} classes, {device.type}",
                peer="torchvision SSD",
                ours=ours_s,
                theirs=theirs_s,
                bar=2.0,
                note=f"equal detections in {equal} of {batch_size} images, {found / batch_size:.0f} an image",
            )
        )
    return comparisons


def trained_like_output(
    batch_size: int, priors_cxcywh: Tensor, num_classes: int, objects: tuple[int, int] = (1, 6)
) -> SSDOutput:
    """Draw an output like that of a trained network: high scores for objects that priors overlap, else for background.

    Args:
        batch_size: B.
        priors_cxcywh: `[K, 4]`.
        num_classes: C, without the background.
        objects: smallest and largest number of objects of an image.
    """
    generator = torch.Generator().manual_seed(0)
    priors = priors_cxcywh.cpu()
    offsets = 0.3 * torch.randn(batch_size, len(priors), 4, generator=generator)
    logits = 0.8 * torch.randn(batch_size, len(priors), num_classes + 1, generator=generator)
    logits[..., 0] += 9
    for image_logits in logits:
        count = int(torch.randint(objects[0], objects[1] + 1, (1,), generator=generator))
        centre, size = torch.rand(2, count, 2, generator=generator)
        boxes = cxcywh_to_xyxy(torch.cat((centre, 0.1 + 0.4 * size), dim=1))
        iou, nearest = box_iou(cxcywh_to_xyxy(priors), boxes).max(dim=1)  # [K]
        labels = torch.randint(1, num_classes + 1, (count,), generator=generator)[nearest]
        image_logits[torch.arange(len(priors)), labels] += 20 * iou - 1
    device = priors_cxcywh.device
    return SSDOutput(offsets.to(device), logits.to(device), priors_cxcywh)


def _equal(ours: Detections, theirs: dict[str, Tensor]) -> bool:
    (boxes, scores, labels), (their_boxes, their_scores, their_labels) = _ordered(ours), _ordered(theirs)
    if not torch.equal(labels, their_labels):
        return False
    boxes_equal = torch.allclose(boxes * IMAGE_SIZE, their_boxes, rtol=0, atol=1e-3)  # pixels
    return boxes_equal and torch.allclose(scores, their_scores, rtol=1e-5, atol=0)


def _ordered(detections: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Sort by score, and equal scores by class, since the peer returns them in any order."""
    order = detections["labels"].argsort(stable=True)
    order = order[detections["scores"][order].argsort(descending=True, stable=True)]
    return detections["boxes"][order], detections["scores"][order], detections["labels"][order]
