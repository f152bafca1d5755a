"""The first training steps of a run, on the images that a check found valid."""

import logging
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch.utils.data import DataLoader, RandomSampler

from ssd_lightning.analysis.dataset_check.dry_run import first_loss_issues, first_losses, run_estimate
from ssd_lightning.analysis.dataset_check.splits import DatasetCheck
from ssd_lightning.analysis.issues import Issue
from ssd_lightning.data.dataset import DetectionDataset, collate
from ssd_lightning.data.detection_data import spare_workers
from ssd_lightning.data.sampler import EpochSampler, repeat_factors
from ssd_lightning.memory import MIB, keep_freed_memory, peak_memory_mib
from ssd_lightning.models import SSD
from ssd_lightning.timing import seconds_of
from ssd_lightning.training.batch_scaling import split_optimizer
from ssd_lightning.training.budget import parse_budget
from ssd_lightning.training.compilation import compile_network
from ssd_lightning.training.devices import check_devices, device_batch_size, training_device
from ssd_lightning.training.optim import call_factory

log = logging.getLogger(__name__)

HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
BATCHES_OF_FIRST_LOSS = 2
MOST_ON_A_PROCESSOR = 8
"""Images per trial step on a CPU."""


def try_steps(check: DatasetCheck, config: DictConfig, net: SSD) -> dict[str, Any] | None:
    """Run a few training steps to get the first loss and an estimate of the whole run; None if not possible."""
    num_devices = check_devices(config.trainer.accelerator, config.trainer.devices) * config.trainer.num_nodes
    device = training_device(config.trainer.accelerator)
    accumulate = config.trainer.accumulate_grad_batches
    share = device_batch_size(config.data.batch_size, ranks=num_devices, accumulate=accumulate)
    batch_size = config.trial_batch_size or (min(share, MOST_ON_A_PROCESSOR) if device.type == "cpu" else share)
    keep_freed_memory(device)
    dataset = sound_images(check, config)
    if not len(dataset):
        return None
    net = net.to(device)
    if config.channels_last:
        net = net.to(memory_format=torch.channels_last)
    compile_network(net, config.compile)
    log.info("timing steps on %s: %d, of %d images each", device.type, config.trial_steps, batch_size)
    try:
        losses, measured = take_steps(net, dataset, config, batch_size=batch_size, device=device)
    except torch.OutOfMemoryError as error:
        sentence = f"a training step does not fit into the memory of {device}: {str(error).splitlines()[0]}"
        check.issues.append(Issue("error", "memory", "train", sentence))
        return None
    check.issues += first_loss_issues(losses)
    annotations = check.datasets["train"].annotations
    repeats = repeat_factors(annotations, threshold=config.data.repeat_threshold) if config.data.repeat_rare else None
    estimate = run_estimate(
        **measured,
        measured_batch_size=batch_size,
        batch_size=config.data.batch_size,
        num_images=EpochSampler(size=len(annotations), pad=True, repeats=repeats).samples,
        num_devices=num_devices,
        max_epochs=None if config.budget else config.trainer.max_epochs,
        max_steps=config.trainer.max_steps,
        budget_s=parse_budget(config.budget) if config.budget else None,
        batches_a_step=accumulate,
    )
    return {"where": f"{device.type}, {config.trainer.precision}", "losses": losses, "estimate": estimate}


def sound_images(check: DatasetCheck, config: DictConfig) -> DetectionDataset:
    """Return the training images that were decoded without a problem, with the augmentation of the training."""
    dataset = check.datasets["train"]
    facts = [check.facts.get(Path(path)) for path in dataset.annotations.image_paths]
    is_sound = np.array([fact is not None and fact.problem is None for fact in facts], bool)
    return DetectionDataset(
        annotations=dataset.annotations.select(is_sound),
        class_names=dataset.class_names,
        transform=instantiate(config.augmentation, _convert_="all"),
        seed=config.seed,
    )


def take_steps(
    net: SSD, dataset: DetectionDataset, config: DictConfig, *, batch_size: int, device: torch.device
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Return `first_losses`, and after some training the measurements that `run_estimate` needs."""
    loss = instantiate(config.loss, _convert_="all").to(device).train()
    settings, _ = split_optimizer(config.optimizer, batch_size)  # the learning rate does not matter for a few steps
    optimizer = call_factory("optimizer", instantiate(settings, _convert_="all"), net.parameters())
    num_workers = spare_workers(1) if config.data.num_workers is None else config.data.num_workers
    # Besides the timed steps, there is one for warm-up and one for the memory.
    count = (BATCHES_OF_FIRST_LOSS + 2 + config.trial_steps) * batch_size
    generator = torch.Generator().manual_seed(config.seed)
    sampler = RandomSampler(dataset, replacement=True, num_samples=count, generator=generator)
    batches = iter(DataLoader(dataset, batch_size, sampler=sampler, num_workers=num_workers, collate_fn=collate))
    half = HALF.get(str(config.trainer.precision))

    def step() -> None:
        images, targets = next(batches)
        with torch.autocast(device.type, half, enabled=half is not None):
            losses = loss(net(images.to(device, non_blocking=True)), targets)
        (losses["loss_box"] + losses["loss_cls"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    first = [(images.to(device), targets) for images, targets in islice(batches, BATCHES_OF_FIRST_LOSS)]
    losses = first_losses(net, loss, first)
    step()
    seconds = median(seconds_of(step, device) for _ in range(config.trial_steps))
    peak = peak_memory_mib(step, device)
    weights = sum(weight.nbytes for weight in net.parameters()) / MIB
    values = [value for of_weight in optimizer.state.values() for value in of_weight.values()]
    state = sum(value.nbytes for value in values if torch.is_tensor(value)) / MIB
    return losses, {
        "seconds_a_step": seconds,
        # Gradients are allocated and freed in every step, so they are part of its peak.
        "activations_mib": None if peak is None else max(0.0, peak - weights),
        "fixed_mib": 2 * weights + state,
    }
