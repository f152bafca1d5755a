"""The first training steps of a run, on the images that a check found valid."""

import logging
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from ssd_lightning.analysis.dataset_check.dry_run import run_estimate, sound_batches, take_steps
from ssd_lightning.analysis.dataset_check.splits import DatasetCheck
from ssd_lightning.data.loading import spare_workers
from ssd_lightning.data.sampler import EpochSampler, repeat_factors
from ssd_lightning.memory import keep_freed_memory
from ssd_lightning.models import SSD
from ssd_lightning.training.batch_scaling import split_optimizer
from ssd_lightning.training.budget import parse_budget
from ssd_lightning.training.compilation import compile_network
from ssd_lightning.training.devices import check_devices, device_batch_size, training_device
from ssd_lightning.training.optim import call_factory

log = logging.getLogger(__name__)

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
    batches = sound_batches(
        check,
        instantiate(config.augmentation, _convert_="all"),
        batch_size=batch_size,
        steps=config.trial_steps,
        num_workers=spare_workers(1) if config.data.num_workers is None else config.data.num_workers,
        seed=config.seed,
    )
    if batches is None:
        return None
    net = net.to(device)
    if config.channels_last:
        net = net.to(memory_format=torch.channels_last)
    compile_network(net, config.compile)
    settings, _ = split_optimizer(config.optimizer, batch_size)  # the learning rate does not matter for a few steps
    log.info("timing steps on %s: %d, of %d images each", device.type, config.trial_steps, batch_size)
    trial = take_steps(
        check,
        net,
        instantiate(config.loss, _convert_="all").to(device).train(),
        call_factory("optimizer", instantiate(settings, _convert_="all"), net.parameters()),
        batches,
        steps=config.trial_steps,
        device=device,
        precision=str(config.trainer.precision),
    )
    if trial is None:
        return None
    annotations = check.datasets["train"].annotations
    repeats = repeat_factors(annotations, threshold=config.data.repeat_threshold) if config.data.repeat_rare else None
    estimate = run_estimate(
        seconds_a_step=trial.seconds_a_step,
        measured_batch_size=batch_size,
        batch_size=config.data.batch_size,
        num_images=EpochSampler(size=len(annotations), pad=True, repeats=repeats).samples,
        num_devices=num_devices,
        max_epochs=None if config.budget else config.trainer.max_epochs,
        max_steps=config.trainer.max_steps,
        budget_s=parse_budget(config.budget) if config.budget else None,
        batches_a_step=accumulate,
        activations_mib=trial.activations_mib,
        fixed_mib=trial.fixed_mib,
    )
    return {"where": f"{device.type}, {config.trainer.precision}", "losses": trial.losses, "estimate": estimate}
