"""Run a few training steps on valid images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader, RandomSampler

from ssd_lightning.analysis.dataset_check.splits import DatasetCheck
from ssd_lightning.analysis.dry_run import first_loss_issues, first_losses, time_steps
from ssd_lightning.analysis.issues import Issue
from ssd_lightning.data.dataset import DetectionDataset, Transform, collate
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.memory import MIB, peak_memory_mib
from ssd_lightning.models.ssd import SSD
from ssd_lightning.types import Target

Batches = Iterator[tuple[Tensor, list[Target]]]
HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
BATCHES_OF_FIRST_LOSS = 2
BATCHES_BESIDE = BATCHES_OF_FIRST_LOSS + 2
"""Steps besides the timed ones: one for warm-up, one for the memory."""


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
    facts, dataset = check.facts, check.datasets["train"]
    known = [facts.get(Path(path)) for path in dataset.annotations.image_paths]
    sound = np.array([fact is not None and fact.problem is None for fact in known], bool)
    if not sound.any():
        return None
    annotations = dataset.annotations.select(sound)
    sound_ones = DetectionDataset(
        annotations=annotations, class_names=dataset.class_names, transform=transform, seed=seed
    )
    generator = torch.Generator().manual_seed(seed)
    count = (steps + BATCHES_BESIDE) * batch_size
    sampler = RandomSampler(sound_ones, replacement=True, num_samples=count, generator=generator)
    return iter(DataLoader(sound_ones, batch_size, sampler=sampler, num_workers=num_workers, collate_fn=collate))


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

    The network is on the device, as at the start of the run.

    Returns:
        The measurements; None if the memory is not sufficient.
    """

    def step() -> None:
        images, targets = next(batches)
        with torch.autocast(device.type, HALF.get(precision), enabled=precision in HALF):
            losses = loss(net(images.to(device, non_blocking=True)), targets)
        (losses["loss_box"] + losses["loss_cls"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    try:
        first = [
            (images.to(device), targets) for images, targets in (next(batches) for _ in range(BATCHES_OF_FIRST_LOSS))
        ]
        losses = first_losses(net, loss, first)
        seconds = time_steps(step, steps, device)
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
