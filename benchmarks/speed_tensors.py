"""Loss, post-processing and metric on drawn tensors, compared with torchvision's SSD and with torchmetrics."""

from collections.abc import Mapping
from typing import Any

import torch
from results import Comparison
from speed_training import torchvision_ssd300
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou

from helpers.random_ssd import random_output, random_targets, trained_like_output
from ssd_lightning.losses import ArgmaxMatcher, MultiBoxLoss
from ssd_lightning.metrics import VOCMeanAveragePrecision
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.boxes import clip_boxes, cxcywh_to_xyxy
from ssd_lightning.ops.priors import SSD300_VOC, make_priors
from ssd_lightning.timing import time_pairs
from ssd_lightning.types import Detections, SSDOutput, Target

NUM_CLASSES, IMAGE_SIZE = 20, 300
METRIC_BATCH = 32


def compare_loss(*, device: torch.device, batch_size: int, pairs: int = 15) -> Comparison:
    """Compare matching, loss and backward pass of one batch, given the network's output."""
    priors = make_priors(SSD300_VOC, IMAGE_SIZE).to(device)
    output = random_output(batch_size, priors, NUM_CLASSES)
    targets = random_targets(batch_size, NUM_CLASSES)
    # The paper's loss as in torchvision, whose matcher lets several objects share a best prior.
    loss = MultiBoxLoss(matcher=ArgmaxMatcher()).train()
    peer = torchvision_ssd300(NUM_CLASSES)
    # Normalised boxes for both sides, since rounding in pixels would create other ties of overlap.
    peer_priors = [cxcywh_to_xyxy(priors)] * batch_size
    peer_targets = [{name: target[name].to(device) for name in ("boxes", "labels")} for target in targets]
    heads = {"bbox_regression": output.box_offsets, "cls_logits": output.class_logits}
    results: dict[str, Tensor] = {}

    def backward(side: str, losses: Mapping[str, Tensor]) -> None:
        output.box_offsets.grad = output.class_logits.grad = None
        results[side] = torch.stack([*losses.values()]).sum()
        results[side].backward()

    def theirs() -> None:  # as in the training branch of torchvision's `SSD.forward`
        matched = [peer.proposal_matcher(box_iou(target["boxes"], peer_priors[0])) for target in peer_targets]
        backward("theirs", peer.compute_loss(peer_targets, heads, peer_priors, matched))

    ours_s, theirs_s = time_pairs(lambda: backward("ours", loss(output, targets)), theirs, pairs=pairs, device=device)
    return Comparison(
        part="loss",
        setting=f"match + loss + backward, batch {batch_size}, {len(priors)} priors, 1-6 boxes, {device.type}",
        peer="torchvision SSD",
        ours=ours_s,
        theirs=theirs_s,
        note=f"losses {results['ours'].item():.6f} and {results['theirs'].item():.6f}",
    )


def compare_postprocess(*, device: torch.device, batch_size: int, pairs: int = 9) -> list[Comparison]:
    """Compare the steps from the network's output to detections, for an untrained and a trained network."""
    priors = make_priors(SSD300_VOC, IMAGE_SIZE).to(device)
    # Its thresholds, 400 boxes per class and 200 per image, are those of the paper and of this project.
    peer = torchvision_ssd300(NUM_CLASSES).eval()
    anchors = [cxcywh_to_xyxy(priors) * IMAGE_SIZE] * batch_size
    sizes = [(IMAGE_SIZE, IMAGE_SIZE)] * batch_size
    comparisons = []
    for name, draw in {"random logits": random_output, "trained-like logits": trained_like_output}.items():
        output = SSDOutput(*(tensor.detach() for tensor in draw(batch_size, priors, NUM_CLASSES)))
        results: dict[str, list] = {}

        def ours(output: SSDOutput = output, results: dict[str, list] = results) -> None:
            results["ours"] = PostProcess(clip_first=True)(output)

        def theirs(output: SSDOutput = output, results: dict[str, list] = results) -> None:
            head = {"bbox_regression": output.box_offsets, "cls_logits": output.class_logits}
            with torch.no_grad():
                results["theirs"] = peer.postprocess_detections(head, anchors, sizes)

        ours_s, theirs_s = time_pairs(ours, theirs, pairs=pairs, device=device)
        equal = sum(map(are_equal, results["ours"], results["theirs"]))
        found = sum(len(detections["scores"]) for detections in results["ours"])
        comparisons.append(
            Comparison(
                part="postprocess",
                setting=f"{name}, batch {batch_size}, {len(priors)} priors, {NUM_CLASSES} classes, {device.type}",
                peer="torchvision SSD",
                ours=ours_s,
                theirs=theirs_s,
                note=f"equal detections in {equal} of {batch_size} images, {found / batch_size:.0f} an image",
            )
        )
    return comparisons


def are_equal(ours: Detections, theirs: Mapping[str, Tensor]) -> bool:
    """Tell whether both sides have the same detections, ours normalised and theirs in pixels, in any order of ties."""
    (boxes, scores, labels), (their_boxes, their_scores, their_labels) = _ordered(ours), _ordered(theirs)
    return (
        torch.equal(labels, their_labels)
        and torch.allclose(boxes * IMAGE_SIZE, their_boxes, rtol=0, atol=1e-3)
        and torch.allclose(scores, their_scores, rtol=1e-5, atol=0)
    )


def _ordered(detections: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    order = detections["labels"].argsort(stable=True)
    order = order[detections["scores"][order].argsort(descending=True, stable=True)]
    return detections["boxes"][order], detections["scores"][order], detections["labels"][order]


def compare_metric(*, images: int = 4952, detections: int = 200, pairs: int = 1) -> Comparison:
    """Compare updates in batches of 32 plus evaluation, at an IoU of .5, on the CPU.

    Args:
        images: number of images in the test set; VOC2007 has 4952.
        detections: number of detections of an image.
        pairs: number of timings of each side; the peer takes half a minute.
    """
    preds, targets = drawn_evaluation(images, detections)
    results: dict[str, float] = {}

    def ours() -> None:
        results["ours"] = float(_evaluate(VOCMeanAveragePrecision(NUM_CLASSES), preds, targets)["map_area"])

    def theirs() -> None:
        metric = MeanAveragePrecision(
            backend="pycocotools", iou_thresholds=[0.5], max_detection_thresholds=[1, 10, detections]
        )
        metric.warn_on_many_detections = False
        results["theirs"] = float(_evaluate(metric, preds, targets)["map_50"])

    ours_s, theirs_s = time_pairs(ours, theirs, pairs=pairs, device=torch.device("cpu"), warmup=0)
    return Comparison(
        part="metric",
        setting=f"VOC mAP of {images} images, {detections} detections each, {NUM_CLASSES} classes",
        peer="torchmetrics, pycocotools",
        ours=ours_s,
        theirs=theirs_s,
        note=f"area {results['ours']:.4f}, COCO's 101 points at IoU .5 {results['theirs']:.4f}",
    )


def drawn_evaluation(images: int, detections: int) -> tuple[list[Detections], list[Target]]:
    """Draw images of 1 to 5 objects, each detected with a small offset, plus noise of lower scores."""
    generator = torch.Generator().manual_seed(1)
    preds, targets = [], random_targets(images, NUM_CLASSES, (1, 5))
    for target in targets:
        count, noise = len(target["labels"]), detections - len(target["labels"])
        centre, size = torch.rand(2, noise, 2, generator=generator)
        found = target["boxes"] + 0.02 * torch.randn(count, 4, generator=generator)
        boxes = clip_boxes(torch.cat((found, cxcywh_to_xyxy(torch.cat((centre, 0.05 + 0.4 * size), dim=1)))))
        labels = torch.cat((target["labels"], torch.randint(1, NUM_CLASSES + 1, (noise,), generator=generator)))
        scores = 0.3 * torch.rand(detections, generator=generator)
        scores[:count] += 0.7 * torch.rand(count, generator=generator)
        scores, order = scores.sort(descending=True)
        preds.append(Detections(boxes=boxes[order], scores=scores, labels=labels[order]))
    return preds, targets


def _evaluate(metric: Metric, preds: list[Detections], targets: list[Target]) -> dict[str, Tensor]:
    for start in range(0, len(preds), METRIC_BATCH):
        metric.update(preds[start : start + METRIC_BATCH], targets[start : start + METRIC_BATCH])
    return metric.compute()
