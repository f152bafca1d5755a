"""Growth of time and memory per image with batch, classes, boxes and input."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from ssd_lightning.benchmarking.loss import random_output, random_targets
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.memory import peak_memory_mib
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.models.ssd import SSD
from ssd_lightning.timing import seconds_of

BATCHES = (1, 4, 16, 64, 256)
CLASSES = (1, 20, 80, 600)
BOXES = (0, 1, 10, 100, 500)
INPUTS = (300, 512, 1024)
BATCH, NUM_CLASSES, NUM_BOXES, INPUT = 8, 20, 4, 300
"""Values of the other axes while one grows."""


@dataclass(frozen=True)
class Point:
    """Cost of one image at one size of one axis."""

    part: str
    axis: str
    size: int
    ms_a_image: float
    mib_a_image: float | None = None
    """Peak memory of tensors; None if it was not measured."""

    def as_record(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def exponents(points: list[Point]) -> list[float | None]:
    """Return the growth of the time of each point since the previous one, as a power of the size: 1 is linear.

    On the axis `batch` the time is that of the whole batch; on `input` the size is the number of pixels. None without a
    previous point, or if its size was 0.
    """
    found: list[float | None] = [None] * min(1, len(points))
    for before, point in pairwise(points):
        same_curve = (before.part, before.axis) == (point.part, point.axis) and before.size > 0
        if not same_curve:
            found.append(None)
            continue
        size = math.log(point.size / before.size) * (2 if point.axis == "input" else 1)
        whole_batch = 1 if point.axis == "batch" else 0
        found.append(math.log(point.ms_a_image / before.ms_a_image) / size + whole_batch)
    return found


def measure_growth(
    network: Callable[[int], SSD], *, device: torch.device, repeats: int = 3, most_network_batch: int = 256
) -> Iterator[Point]:
    """Measure every part along every axis that affects it, curve by curve.

    Args:
        network: builds the network for an input size and `NUM_CLASSES`.
        device: device of the measurement.
        repeats: repetitions for each point; the median counts.
        most_network_batch: largest batch for the network itself; a CPU is slow with large ones.
    """

    def point(part: str, axis: str, size: int, batch: int, work: Callable[[], object]) -> Point:
        mib = peak_memory_mib(work, device)  # warms up too
        seconds = median(seconds_of(work, device) for _ in range(repeats))
        return Point(part, axis, size, seconds * 1e3 / batch, None if mib is None else mib / batch)

    priors = {size: network(size).priors_cxcywh.to(device) for size in INPUTS}
    for size in BATCHES:
        yield point("loss", "batch", size, size, _loss(priors[INPUT], size, NUM_CLASSES, NUM_BOXES))
    for size in CLASSES:
        yield point("loss", "classes", size, BATCH, _loss(priors[INPUT], BATCH, size, NUM_BOXES))
    for size in BOXES:
        yield point("loss", "boxes", size, BATCH, _loss(priors[INPUT], BATCH, NUM_CLASSES, size))
    for size in INPUTS:
        yield point("loss", "input", size, BATCH, _loss(priors[size], BATCH, NUM_CLASSES, NUM_BOXES))
    for size in BATCHES:
        yield point("postprocess", "batch", size, size, _postprocess(priors[INPUT], size, NUM_CLASSES))
    for size in CLASSES:
        yield point("postprocess", "classes", size, BATCH, _postprocess(priors[INPUT], BATCH, size))
    for size in INPUTS:
        yield point("postprocess", "input", size, BATCH, _postprocess(priors[size], BATCH, NUM_CLASSES))
    for size in (batch for batch in BATCHES if batch <= most_network_batch):
        yield point("network", "batch", size, size, _forward(network(INPUT), size, device))
    for size in INPUTS:
        yield point("network", "input", size, 1, _forward(network(size), 1, device))


def _loss(priors_cxcywh: torch.Tensor, batch: int, num_classes: int, num_boxes: int) -> Callable[[], None]:
    output = random_output(batch, priors_cxcywh, num_classes)
    targets = random_targets(batch, num_classes, (num_boxes, num_boxes))
    loss = MultiBoxLoss()

    def work() -> None:
        output.box_offsets.grad = output.class_logits.grad = None
        losses = loss(output, targets)
        (losses["loss_box"] + losses["loss_cls"]).backward()

    return work


def _postprocess(priors_cxcywh: torch.Tensor, batch: int, num_classes: int) -> Callable[[], object]:
    output = random_output(batch, priors_cxcywh, num_classes)
    output = output._replace(box_offsets=output.box_offsets.detach(), class_logits=output.class_logits.detach())
    return lambda: PostProcess()(output)


def _forward(network: SSD, batch: int, device: torch.device) -> Callable[[], None]:
    network = network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.zeros(batch, 3, *network.image_size, dtype=torch.uint8, device=device)

    def work() -> None:
        with torch.inference_mode():
            network(images)

    return work
