"""Ranks that see different numbers of images must all report what one process would; see test_distribution.py, too."""

import pytest
import torch

from ssd_lightning.metrics import COCOMeanAveragePrecision, VOCMeanAveragePrecision
from ssd_lightning.metrics.detection_state import DetectionMetric

NUM_CLASSES = 3


def metrics() -> list[DetectionMetric]:
    return [VOCMeanAveragePrecision(NUM_CLASSES), COCOMeanAveragePrecision()]


def contribution(metric: DetectionMetric) -> list[torch.Tensor]:
    """Tensors that the metric would exchange with other ranks, in their order."""
    sent: list[torch.Tensor] = []

    def record(tensor: torch.Tensor, group: object) -> list[torch.Tensor]:
        sent.append(tensor)
        return [tensor]

    metric.sync(dist_sync_fn=record, distributed_available=lambda: True)
    metric.unsync()
    return sent


@pytest.mark.parametrize("split", [0, 1, 5])
def test_tables_of_two_ranks_fit_together(draw, split: int) -> None:
    preds, targets = draw(5, NUM_CLASSES, seed=1)
    (first, _), (second, _), (whole, _) = metrics(), metrics(), metrics()
    whole.update(preds, targets)
    for image in range(5):
        (first if image < split else second).update(preds[image : image + 1], targets[image : image + 1])
    first_sends, second_sends = contribution(first), contribution(second)
    for mine, other in zip(first_sends, second_sends, strict=True):
        assert (mine.dtype, mine.shape[1:]) == (other.dtype, other.shape[1:])
    for metric, theirs in ((first, second_sends), (second, first_sends)):
        received = iter(theirs)
        metric.distributed_available_fn = lambda: True
        metric.dist_sync_fn = lambda tensor, group, received=received: [tensor, next(received)]
        torch.testing.assert_close(metric.compute(), whole.compute(), rtol=0, atol=0, equal_nan=True)
