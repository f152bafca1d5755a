"""Ranks that see different numbers of images must all report what one process would."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ssd_lightning.metrics import COCOMeanAveragePrecision, VOCMeanAveragePrecision
from ssd_lightning.metrics.detection_state import DetectionMetric

NUM_CLASSES = 3

# Images of each update, of rank 0 and of rank 1. Steps build on each other: nothing is reset between them.
STEPS = [
    ([], []),
    ([[0, 1, 2], [3], [4, 5, 6]], []),
    ([[]], [[7, 2], [8]]),  # image 2 again
    ([], [[9, 10, 11, 12]]),
]


def metrics() -> list[DetectionMetric]:
    return [VOCMeanAveragePrecision(NUM_CLASSES), COCOMeanAveragePrecision()]


def run_rank(rank: int, folder: Path, preds: list, targets: list) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    results = []
    mine = metrics()
    for step in STEPS:
        for metric in mine:
            for images in step[rank]:
                metric.update([preds[i] for i in images], [targets[i] for i in images])
            results.append(metric.compute())
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


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


@pytest.mark.slow
def test_uneven_updates_and_duplicates_across_ranks(draw, tmp_path: Path) -> None:
    preds, targets = draw(13, NUM_CLASSES, seed=0, score_steps=3)
    mp.spawn(run_rank, args=(tmp_path, preds, targets), nprocs=2)
    by_rank = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    single = metrics()
    expected = []
    for step in STEPS:
        for metric in single:
            for images in step[0] + step[1]:
                metric.update([preds[i] for i in images], [targets[i] for i in images])
            expected.append(metric.compute())
    assert len({float(result["map_area"]) for result in expected[::2]}) == len(STEPS)
    for results in by_rank:
        torch.testing.assert_close(results, expected, rtol=0, atol=0, equal_nan=True)
