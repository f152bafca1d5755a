"""The first steps of a run: expected loss of an untrained network, time of a step, and an estimate of the whole run."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, RandomSampler

from ssd_lightning.analysis.dataset_check.splits import DatasetCheck
from ssd_lightning.analysis.issues import Issue
from ssd_lightning.data.dataset import DetectionDataset, Transform, collate
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.memory import MIB, peak_memory_mib
from ssd_lightning.models.ssd import SSD
from ssd_lightning.timing import seconds_of
from ssd_lightning.types import SSDOutput, Target

Loss = Callable[[SSDOutput, Sequence[Target]], Mapping[str, Tensor]]
Batch = tuple[Tensor, Sequence[Target]]
Batches = Iterator[tuple[Tensor, list[Target]]]
HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
BATCHES_OF_FIRST_LOSS = 2
BATCHES_BESIDE = BATCHES_OF_FIRST_LOSS + 2
"""Steps besides the timed ones: one for warm-up, one for the memory."""
MOST_TIMES_EXPECTED = 10.0
"""Factor for the first class loss. Mining selects the worst of thousands of negatives, so a network with scattered
logits has several times the loss of the uniform guess."""


@dataclass(frozen=True)
class Trial:
    """Measurements of the steps."""

    losses: dict[str, dict[str, float]]
    """Result of `first_losses`."""
    seconds_a_step: float
    activations_mib: float | None
    """Peak of a step above weights, gradients and the optimiser's state; None if the device does not report it."""
    fixed_mib: float
    """Weights, gradients and the optimiser's state."""


def sound_batches(
    check: DatasetCheck, transform: Transform, *, batch_size: int, steps: int, num_workers: int, seed: int
) -> Batches | None:
    """Load and augment batches of valid training images; None if there are none."""
    dataset = check.datasets["train"]
    facts = [check.facts.get(Path(path)) for path in dataset.annotations.image_paths]
    is_sound = np.array([fact is not None and fact.problem is None for fact in facts], bool)
    annotations = dataset.annotations.select(is_sound)
    if not len(annotations):
        return None
    sound = DetectionDataset(annotations=annotations, class_names=dataset.class_names, transform=transform, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    count = (steps + BATCHES_BESIDE) * batch_size
    sampler = RandomSampler(sound, replacement=True, num_samples=count, generator=generator)
    return iter(DataLoader(sound, batch_size, sampler=sampler, num_workers=num_workers, collate_fn=collate))


def take_steps(
    check: DatasetCheck,
    net: SSD,
    loss: MultiBoxLoss,
    optimizer: Optimizer,
    batches: Batches,
    *,
    steps: int,
    device: torch.device,
    precision: str,
) -> Trial | None:
    """Compare the first loss with its expected value, then train, and measure time and memory.

    The network is on the device, as at the start of the run. None if the memory is not sufficient.
    """

    def step() -> None:
        images, targets = next(batches)
        with torch.autocast(device.type, HALF.get(precision), enabled=precision in HALF):
            losses = loss(net(images.to(device, non_blocking=True)), targets)
        (losses["loss_box"] + losses["loss_cls"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    try:
        first = list(islice(batches, BATCHES_OF_FIRST_LOSS))
        losses = first_losses(net, loss, [(images.to(device), targets) for images, targets in first])
        step()  # warm-up
        seconds = median(seconds_of(step, device) for _ in range(steps))
        peak = peak_memory_mib(step, device)
    except torch.OutOfMemoryError as error:
        sentence = f"a training step does not fit into the memory of {device}: {str(error).splitlines()[0]}"
        check.issues.append(Issue("error", "memory", "train", sentence))
        return None
    check.issues += first_loss_issues(losses)
    weights = sum(weight.nbytes for weight in net.parameters()) / MIB
    values = [value for of_weight in optimizer.state.values() for value in of_weight.values()]
    state = sum(value.nbytes for value in values if torch.is_tensor(value)) / MIB
    return Trial(
        losses=losses,
        seconds_a_step=seconds,
        # Gradients are allocated and freed in every step, so they are part of its peak.
        activations_mib=None if peak is None else max(0.0, peak - weights),
        fixed_mib=2 * weights + state,
    )


@torch.no_grad()
def first_losses(net: nn.Module, loss: Loss, batches: Sequence[Batch]) -> dict[str, dict[str, float]]:
    """Compare the loss of an untrained network with that of a uniform guess on the same images.

    In the guess all logits are 0, so that every counted prior costs ln(C + 1), and all offsets are 0, so that every
    matched prior has its whole distance to the object as error. This works for any class loss and normaliser.

    The network is not changed, and stays in training mode.

    Returns:
        `expected` and `measured`: name of the loss -> mean over the batches.
    """
    expected: dict[str, float] = {}
    measured: dict[str, float] = {}
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net.train()
    for images, targets in batches:
        output: SSDOutput = net(images)
        guess = SSDOutput(
            torch.zeros_like(output.box_offsets), torch.zeros_like(output.class_logits), output.priors_cxcywh
        )
        for sums, of_output in ((expected, guess), (measured, output)):
            for name, value in loss(of_output, targets).items():
                sums[name] = sums.get(name, 0.0) + float(value) / len(batches)
    for name, buffer in net.named_buffers():  # restore the running means of batch norm
        buffer.copy_(buffers[name])
    return {"expected": expected, "measured": measured}


def first_loss_issues(losses: Mapping[str, Mapping[str, float]]) -> list[Issue]:
    """Check the result of `first_losses`."""
    measured, expected = losses["measured"], losses["expected"]
    broken = [f"{name} is {value}" for name, value in measured.items() if not math.isfinite(value)]
    if broken:
        return [Issue("error", "first_loss", "train", f"the first loss is not finite: {', '.join(broken)}")]
    if measured["loss_cls"] <= MOST_TIMES_EXPECTED * expected["loss_cls"]:
        return []
    sentence = f"the first class loss is {measured['loss_cls']:.1f}; that of a network whose logits are all 0 is "
    return [Issue("warning", "first_loss", "train", f"{sentence}{expected['loss_cls']:.1f}")]


def run_estimate(
    *,
    seconds_a_step: float,
    measured_batch_size: int,
    batch_size: int,
    num_images: int,
    num_devices: int,
    max_epochs: int | None,
    max_steps: int,
    batches_a_step: int,
    activations_mib: float | None,
    fixed_mib: float,
    budget_s: float | None = None,
) -> dict[str, Any]:
    """Extrapolate a few steps to the whole run, without validation and checkpoints.

    A step has `batch_size` images, shared by `num_devices`, which are assumed to be as fast as this one and accumulate
    `batches_a_step` batches each. None or -1 for `max_epochs`, -1 for `max_steps` and None for `budget_s` are no limit.
    `fixed_mib` are weights, gradients and the optimiser's state; `activations_mib` is the peak of a measured step above
    it, None if the device does not report it.

    Returns:
        Plain values; `hours` is None for a run without an end.
    """
    images_per_s = measured_batch_size / seconds_a_step
    device_batch_size = batch_size / (num_devices * batches_a_step)
    seconds_a_run_step = batch_size / num_devices / images_per_s
    steps = min(
        math.inf if max_epochs in (None, -1) else max_epochs * max(1, num_images // batch_size),
        math.inf if max_steps == -1 else max_steps,
        math.inf if budget_s is None else round(budget_s / seconds_a_run_step),
    )
    memory = None if activations_mib is None else fixed_mib + activations_mib * device_batch_size / measured_batch_size
    return {
        "measured_batch_size": measured_batch_size,
        "images_per_s": images_per_s,
        "batch_size": batch_size,
        "device_batch_size": int(device_batch_size),
        "devices": num_devices,
        "steps": None if math.isinf(steps) else int(steps),
        "hours": None if math.isinf(steps) else steps * seconds_a_run_step / 3600,
        "memory_mib": memory,
    }
