"""Build the objects of a run from its configuration: data, module, trainer."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from ssd_lightning.checks import require_choice, require_number, require_object
from ssd_lightning.data.sampler import multiscale_sizes
from ssd_lightning.data_settings import data_settings
from ssd_lightning.errors import did_you_mean, find_user_error
from ssd_lightning.initial_weights import describe_start, load_init_from
from ssd_lightning.memory import keep_freed_memory
from ssd_lightning.models import SSD, PostProcess
from ssd_lightning.models.config import check_rebuildable
from ssd_lightning.models.files import read_checkpoint, stored_normalization
from ssd_lightning.models.ssd import check_batch_size
from ssd_lightning.training import DetectionDataModule, SSDModule
from ssd_lightning.training.batch_scaling import split_optimizer
from ssd_lightning.training.budget import TrainingBudget, parse_budget
from ssd_lightning.training.callbacks.budget import BudgetCallback
from ssd_lightning.training.callbacks.logged_steps import LogShortRuns
from ssd_lightning.training.compilation import check_compile, compile_network
from ssd_lightning.training.devices import (
    check_devices,
    check_launch,
    check_precision,
    check_sync_batchnorm,
    device_batch_size,
    find_launch,
    training_device,
    warn_of_slow_precision,
)
from ssd_lightning.training.fault_tolerance.checkpoint_io import AtomicCheckpointIO
from ssd_lightning.training.fault_tolerance.data_state import BatchCounters
from ssd_lightning.training.fault_tolerance.new_settings import NewSettings
from ssd_lightning.training.fault_tolerance.rank_consistency import RankConsistencyCheck
from ssd_lightning.training.fault_tolerance.ranks import with_timeout
from ssd_lightning.training.profiling import make_profiler
from ssd_lightning.training.trainer_settings import check_trainer

log = logging.getLogger(__name__)


def set_up_machine(config: DictConfig) -> int:
    """Check that this machine has what the run needs, and apply process-wide settings.

    Returns:
        Number of devices, over all machines, that share a step.

    Raises:
        ConfigurationError: the devices are missing, or they do not support what the run needs.
    """
    require_number("trainer.num_nodes", config.trainer.num_nodes, 1, whole=True)
    require_number("seed", config.seed, 0, 2**32 - 1, whole=True)
    require_choice("matmul_precision", config.matmul_precision, ("highest", "high", "medium"))
    check_trainer(config.trainer)
    num_devices = check_devices(config.trainer.accelerator, config.trainer.devices)
    check_launch(find_launch(os.environ), num_devices=num_devices, num_nodes=config.trainer.num_nodes)
    ranks = num_devices * config.trainer.num_nodes
    device_batch_size(config.data.batch_size, ranks=ranks, accumulate=config.trainer.accumulate_grad_batches)
    check_precision(
        str(config.trainer.precision),
        clips_gradients=bool(config.trainer.gradient_clip_val),
        fused=bool(config.optimizer.get("fused")),
    )
    device = training_device(config.trainer.accelerator)
    warn_of_slow_precision(str(config.trainer.precision), device.type)
    check_compile(config.compile, device, many_sizes=config.data.get("multiscale") is not None)
    check_sync_batchnorm(bool(config.trainer.sync_batchnorm), device.type)
    keep_freed_memory(device)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision(config.matmul_precision)
    torch.backends.cudnn.allow_tf32 = config.matmul_precision != "highest"  # convolutions have a separate switch
    return ranks


def make_budget(config: DictConfig, *, started: float) -> TrainingBudget | None:
    """Parse `budget`, which replaces `trainer.max_epochs`; None if the run is limited by epochs or steps.

    `started` is the start time of the command, on the monotonic clock.

    Raises:
        ConfigurationError: `budget` is not a duration.
    """
    if config.budget is None:
        return None
    seconds = parse_budget(config.budget)
    config.trainer.max_epochs = -1
    return TrainingBudget(seconds, clock=lambda: monotonic() - started)


def make_net(config: DictConfig, num_classes: int, *, pretrained: bool = True) -> SSD:
    """Build the network for C classes and freeze its configured layers. Without `pretrained` its weights are random.

    Raises:
        UserError: a setting or the weights are not usable.
    """
    settings: Any = OmegaConf.to_container(config.model, resolve=True)
    stages, norm = (settings["backbone"].pop(key, None) for key in ("freeze", "freeze_norm"))
    if not pretrained and "weights" in settings["backbone"]:
        settings["backbone"]["weights"] = None
    try:
        net: SSD = instantiate(settings, num_classes=num_classes, _convert_="all")
    except InstantiationException as error:
        if (user_error := find_user_error(error)) is None:
            raise
        raise user_error from error
    check_rebuildable(net)
    net.freeze_backbone(stages=stages, norm=bool(norm))
    return net


def make_module(
    config: DictConfig,
    data: DetectionDataModule,
    *,
    ranks: int,
    checkpoint: Path | None,
    budget: TrainingBudget | None = None,
) -> SSDModule:
    """Build the network, loss and optimiser. The weights of a `checkpoint` to resume replace the initial ones.

    `ranks` is the number of devices that share a step.

    Raises:
        UserError: a setting, the weights of `init_from`, or those of the backbone cannot be used.
    """
    class_names, images = tuple(data.class_names), len(data.dataset("train"))
    loss = instantiate(config.loss, _convert_="all")  # report a wrong setting before weights are downloaded
    postprocess = instantiate(config.postprocess, _convert_="all")
    require_object("postprocess", postprocess, PostProcess)
    brings_weights = config.init_from or checkpoint is not None
    net = make_net(config, len(class_names), pretrained=not brings_weights)
    if checkpoint is not None and config.model.normalization is None:
        net.use_normalization(stored_normalization(read_checkpoint(checkpoint, mapped=True)) or net.normalization)
    if config.data.get("multiscale") is not None:
        net.allow_training_sizes(multiscale_sizes(list(config.data.multiscale), net.image_size))
    accumulate = config.trainer.accumulate_grad_batches
    share = device_batch_size(config.data.batch_size, ranks=ranks, accumulate=accumulate, images=images)
    check_batch_size(net, share * ranks if synchronizes_batch_norm(config, ranks) else share)
    if config.init_from and checkpoint is None:
        load_init_from(net, config, class_names)
    rank_zero_only(log.info)("%s", describe_start(config, net, checkpoint))
    if config.channels_last:
        net = net.to(memory_format=torch.channels_last)
    compile_network(net, config.compile)
    optimizer, own_settings = split_optimizer(config.optimizer, share * ranks * accumulate)
    module = SSDModule(
        net=net,
        loss=loss,
        optimizer=instantiate(optimizer, _convert_="all"),
        scheduler=instantiate(config.scheduler, _convert_="all"),
        class_names=class_names,
        postprocess=postprocess,
        budget=budget,
        resize=data.resize,
        data_settings=data_settings(config),
        **own_settings,
    )
    warn_of_unknown_scores(config, [*module.score_names("val"), *module.score_names("test")])
    return module


def warn_of_unknown_scores(config: DictConfig, known: Sequence[str]) -> None:
    """Warn if the best checkpoint or a sweep depends on a score that is not known: a callback may log it."""
    for key in ("callbacks.best.monitor", "objective"):
        name = OmegaConf.select(config, key)
        if name is not None and name not in known:
            hint = did_you_mean(str(name), known)
            rank_zero_only(log.warning)("%s=%s: no score has this name, unless a callback logs it%s", key, name, hint)


def _objects(config: DictConfig, section: str, kind: type) -> list[Any]:
    """Build the objects of a section, without those that `section.name=null` turned off."""
    built = instantiate(config.get(section) or {}, _convert_="all")
    chosen = {f"{section}.{name}": one for name, one in built.items() if one is not None}
    for name, one in chosen.items():
        require_object(name, one, kind)
    return list(chosen.values())


def synchronizes_batch_norm(config: DictConfig, ranks: int) -> bool:
    """Tell whether batch norm uses the statistics of all devices. The default is yes with more than one GPU."""
    if config.trainer.sync_batchnorm is not None:
        return bool(config.trainer.sync_batchnorm)
    return ranks > 1 and training_device(config.trainer.accelerator).type == "cuda"


def make_data(config: DictConfig) -> DetectionDataModule:
    """Open the data. Files are downloaded first, since class names may be read from them."""
    data: DetectionDataModule = instantiate(config.data.module, _convert_="all")
    require_object("data.module", data, DetectionDataModule)
    data.prepare_data()
    return data


def make_trainer(
    config: DictConfig,
    *,
    run_dir: Path,
    ranks: int,
    checkpoint: Path | None,
    budget: TrainingBudget | None = None,
) -> pl.Trainer:
    """Build the trainer with its callbacks and loggers. The `checkpoint` to resume must be the same on all ranks."""
    size = None if checkpoint is None else checkpoint.stat().st_size
    settings: Any = OmegaConf.to_container(config, resolve=True)
    consistency = RankConsistencyCheck({**settings, "bytes of the checkpoint": size})
    switches = {ProgressBar: config.trainer.enable_progress_bar, Checkpoint: config.trainer.enable_checkpointing}
    off = tuple(kind for kind, is_on in switches.items() if not is_on)
    callbacks, loggers = _objects(config, "callbacks", pl.Callback), _objects(config, "logger", Logger)
    trainer: pl.Trainer = instantiate(
        config.trainer,
        _convert_="all",
        callbacks=[
            consistency,
            LogShortRuns(),
            BatchCounters(),
            NewSettings(),
            *(callback for callback in callbacks if not isinstance(callback, off)),
            # Last, so that it includes the time of the other callbacks in a validation. Checkpoints come even later.
            *([BudgetCallback(budget)] if budget is not None else []),
        ],
        logger=loggers or False,
        plugins=[AtomicCheckpointIO()],
        strategy=with_timeout(config.trainer.strategy, ranks=ranks),
        default_root_dir=run_dir,
        sync_batchnorm=synchronizes_batch_norm(config, ranks),
        profiler=make_profiler(config.trainer.profiler, run_dir),
    )
    return trainer
