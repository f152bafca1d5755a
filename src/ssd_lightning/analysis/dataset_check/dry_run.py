"""What the first steps of a run say: the expected loss of an untrained network, and an estimate of the whole run."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssd_lightning.analysis.issues import Issue
from ssd_lightning.types import SSDOutput, Target

Loss = Callable[[SSDOutput, Sequence[Target]], Mapping[str, Tensor]]
Batch = tuple[Tensor, Sequence[Target]]
MOST_TIMES_EXPECTED = 10.0
"""Factor for the first class loss. Mining selects the worst of thousands of negatives, so a network with scattered
logits has several times the loss of the uniform guess."""


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
