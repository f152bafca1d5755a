"""Mean average precision of a whole test set, compared with torchmetrics and pycocotools."""

from importlib.util import find_spec

import torch
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.metrics import VOCMeanAveragePrecision
from ssd_lightning.ops.boxes import clip_boxes, cxcywh_to_xyxy
from ssd_lightning.timing import Comparison, time_pairs
from ssd_lightning.types import Detections, Target

BATCH_SIZE = 32
BAR_SECONDS = 5.0


def compare_metric(*, pairs: int, images: int = 4952, detections: int = 200, num_classes: int = 20) -> list[Comparison]:
    """Compare updates in batches of 32 plus evaluation, at an IoU of .5, on the CPU, and the time with 5 s.

    Args:
        pairs: number of timings of each side, at most three, since the peer takes half a minute.
        images: number of images in the test set; VOC2007 has 4952.
        detections: number of detections of an image.
        num_classes: C, without the background.

    Raises:
        ConfigurationError: pycocotools is not installed.
    """
    check_peer()
    preds, targets = made_evaluation(images, detections, num_classes)
    results: dict[str, float] = {}

    def ours() -> None:
        results["ours"] = float(_evaluate(VOCMeanAveragePrecision(num_classes), preds, targets)["map_area"])

    def theirs() -> None:
        metric = MeanAveragePrecision(
            backend="pycocotools", iou_thresholds=[0.5], max_detection_thresholds=[1, 10, detections]
        )
        metric.warn_on_many_detections = False
        results["theirs"] = float(_evaluate(metric, preds, targets)["map_50"])

    pairs = min(pairs, 3)
    ours_s, theirs_s = time_pairs(ours, theirs, pairs=pairs, device=torch.device("cpu"), warmup=0)
    setting = f"VOC mAP of {images} images, {detections} detections each, {num_classes} classes"
    return [
        Comparison(
            part="metric",
            setting=setting,
            peer="torchmetrics, pycocotools",
            ours=ours_s,
            theirs=theirs_s,
            bar=10.0,
            note=f"pairs: {pairs}, without warm-up; "
            f"area {results['ours']:.4f}, COCO's 101 points at IoU .5 {results['theirs']:.4f}",
        ),
        Comparison(
            part="metric",
            setting=f"{setting}, the slowest run",
            peer=f"{BAR_SECONDS:g} s",
            ours=(max(ours_s),),
            theirs=(BAR_SECONDS,),
            bar=1.0,
            at_most=True,
        ),
    ]


def check_peer() -> None:
    """Check that the peer can run.

    Raises:
        ConfigurationError: pycocotools is not installed.
    """
    if find_spec("pycocotools") is None:
        raise ConfigurationError("what=metric compares with pycocotools, which is not installed; uv sync installs it")


def made_evaluation(images: int, detections: int, num_classes: int) -> tuple[list[Detections], list[Target]]:
    """Draw images of 1 to 5 objects, each detected with a small offset, plus noise of lower scores."""
    generator = torch.Generator().manual_seed(0)
    preds, targets = [], []
    for index in range(images):
        count = int(torch.randint(1, 6, (1,), generator=generator))
        # Objects first, then the noise.
        centre, size, chance = torch.rand(3, max(count, detections), 2, generator=generator)
        boxes = clip_boxes(cxcywh_to_xyxy(torch.cat((0.1 + 0.8 * centre, 0.05 + 0.4 * size), dim=1)))
        labels = torch.randint(1, num_classes + 1, (len(boxes),), generator=generator)
        scores = 0.3 * chance[:, 0]
        scores[:count] += 0.7 * chance[:count, 1]
        found = boxes.clone()
        found[:count] = clip_boxes(boxes[:count] + 0.02 * torch.randn(count, 4, generator=generator))
        scores, order = scores[:detections].sort(descending=True)
        preds.append(Detections(boxes=found[order], scores=scores, labels=labels[order]))
        targets.append(
            Target(
                boxes=boxes[:count],
                labels=labels[:count],
                difficult=torch.zeros(count, dtype=torch.bool),
                image_id=str(index),
                size_px=(375, 500),
            )
        )
    return preds, targets


def _evaluate(metric: Metric, preds: list[Detections], targets: list[Target]) -> dict[str, torch.Tensor]:
    for start in range(0, len(preds), BATCH_SIZE):
        metric.update(preds[start : start + BATCH_SIZE], targets[start : start + BATCH_SIZE])
    return metric.compute()
