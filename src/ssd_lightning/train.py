"""`python -m ssd_lightning.train`: compose a run, train it, record it."""

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd_lightning.configs import repeated_run, run_command
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.sweeping.parent import end_with_parent
from ssd_lightning.sweeping.plan import rewrite_command_line

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ssd_lightning.models import SSD
    from ssd_lightning.training import SSDModule
    from ssd_lightning.training.datamodule import Stage

log = logging.getLogger(__name__)


def main() -> None:
    """Run the command."""
    end_with_parent()
    rewrite_command_line()
    run_command("train", train)


def train(config: "DictConfig") -> dict[str, float] | float:
    """Train one run; as a job of a sweep, in a process of its own.

    Args:
        config: as `conf/train.yaml` composes it.

    Returns:
        The last value of everything that was logged; of a sweep's job the objective, for the sweeper.

    Raises:
        UserError: a setting, the data or a weights file cannot be used.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if HydraConfig.get().mode == RunMode.MULTIRUN:
        from ssd_lightning.sweeping.task import run_as_job

        return run_as_job(config)

    import pytorch_lightning as pl
    import torch
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from pytorch_lightning.utilities import rank_zero_only

    from ssd_lightning.digest import config_digest
    from ssd_lightning.models.ssd import check_batch_size
    from ssd_lightning.run_dirs import is_restarted
    from ssd_lightning.training import SSDModule
    from ssd_lightning.training.agreement import Agreement
    from ssd_lightning.training.batch_scaling import split_scaling
    from ssd_lightning.training.checkpoint import AtomicCheckpointIO
    from ssd_lightning.training.compilation import check_compile, compile_network
    from ssd_lightning.training.devices import (
        check_devices,
        check_launch,
        check_sync_batchnorm,
        choose_device,
        find_launch,
    )
    from ssd_lightning.training.guards import explain_memory
    from ssd_lightning.training.host_memory import keep_freed_memory
    from ssd_lightning.training.precision import check_precision
    from ssd_lightning.training.profiling import make_profiler
    from ssd_lightning.training.ranks import Lifeline, end_with_launcher
    from ssd_lightning.training.record import (
        data_fingerprints,
        read_record,
        read_result,
        run_record,
        tell_changed_data,
        write_record,
        write_result,
        write_surroundings,
    )
    from ssd_lightning.training.resumption import begin_directory, choose_checkpoint, hold_directory, tell_differences

    end_with_launcher()
    hydra_config = HydraConfig.get()
    num_devices = check_devices(config.trainer.accelerator, config.trainer.devices)
    check_launch(find_launch(os.environ), num_devices=num_devices, num_nodes=config.trainer.num_nodes)
    check_precision(
        str(config.trainer.precision),
        clips_gradients=bool(config.trainer.gradient_clip_val),
        fused=bool(config.optimizer.get("fused")),
    )
    device = choose_device("cpu" if config.trainer.accelerator == "cpu" else "auto")
    check_compile(config.compile, device)
    check_sync_batchnorm(config.trainer.sync_batchnorm, device.type)
    if device.type == "cpu":
        keep_freed_memory()
    run_dir = Path(hydra_config.runtime.output_dir)
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    digest = config_digest(plain)
    goes_on = config.resume or ("auto" if is_restarted() else None)
    if goes_on == "auto" and (result := read_result(run_dir)) is not None and result["digest"] == digest:
        log.info("the run in %s is over since %s; there is nothing to do", run_dir, result["finished"])
        return result["scores"]
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        hold_directory(run_dir)
    resume = choose_checkpoint(goes_on, run_dir)
    profiler = make_profiler(config.trainer.profiler, run_dir)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision(config.matmul_precision)

    data = instantiate(config.data.module, _convert_="all")
    data.prepare_data()  # the class names may have to be read from the files
    if resume is not None:
        check_resumed_classes(resume, data.class_names)
    net = instantiate(config.net, num_classes=len(data.class_names), _convert_="all")
    check_batch_size(net, config.data.batch_size)
    if config.init_from:
        if resume is not None:
            raise ConfigurationError("resume= continues a run and init_from= begins one; give one of them")
        fill(net, config, tuple(data.class_names))
    if config.channels_last:
        net = net.to(memory_format=torch.channels_last)
    compile_network(net, config.compile)
    optimizer, batch_scaling = split_scaling(plain["optimizer"], config.data.batch_size)
    module = SSDModule(
        net=net,
        loss=instantiate(config.loss, _convert_="all"),
        optimizer=instantiate(optimizer, _convert_="all"),
        scheduler=instantiate(config.scheduler, _convert_="all"),
        class_names=data.class_names,
        postprocess_settings=plain["postprocess"],
        bias_lr_factor=config.bias_lr_factor,
        decay_biases=config.decay_biases,
        batch_scaling=batch_scaling,
    )
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        if resume is not None:
            tell_differences(resume, plain)
        begin_directory(run_dir, resume)
    callbacks = instantiate(config.callbacks, _convert_="all")
    loggers = instantiate(config.logger, _convert_="all") if config.get("logger") else {}
    trainer = instantiate(
        config.trainer,
        _convert_="all",
        callbacks=[Agreement(plain), Lifeline(), *wanted_callbacks(callbacks.values(), config.trainer)],
        logger=list(loggers.values()) or False,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run_dir,
        profiler=profiler,
    )
    if trainer.is_global_zero:
        OmegaConf.save(config, run_dir / "config.yaml", resolve=True)
        splits: list[Stage] = ["train", "val", "test"] if config.test else ["train", "val"]
        datasets = {split: data.dataset(split) for split in splits if data.has(split)}
        fingerprints = data_fingerprints(datasets, contents=bool(config.data.get("checksum")))
        repeated = repeated_run()
        for earlier in (resume.parent.parent if resume else None, repeated):
            if earlier is not None:
                tell_changed_data(read_record(earlier), fingerprints, run=earlier)
        record = run_record(
            config.seed,
            class_names=list(data.class_names),
            priors=len(net.priors_cxcywh),
            data=fingerprints,
            repeats=str(repeated) if repeated else None,
        )
        write_record(run_dir, record)
        write_surroundings(run_dir)
        for logger in trainer.loggers:
            logger.log_hyperparams({**plain, "run": record})
        log.info(
            "%d training pictures, %d priors, run in %s",
            len(data.dataset("train")),
            record["priors"],
            run_dir,
        )

    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume)
    except (RuntimeError, MemoryError) as error:
        told = explain_memory(error, batch_size=config.data.batch_size, precision=str(config.trainer.precision))
        if told is None:
            raise
        raise told from error
    checkpoint = best_checkpoint(trainer)
    if config.test and data.has("test"):
        trainer.test(module, datamodule=data, ckpt_path=checkpoint, verbose=False)
    scores = {name: float(value) for name, value in trainer.callback_metrics.items() if value.numel() == 1}
    if trainer.is_global_zero:
        report(module, scores, checkpoint)
        write_result(run_dir, digest=digest, scores=scores, checkpoint=checkpoint)
    return scores


def fill(net: "SSD", config: "DictConfig", class_names: tuple[str, ...]) -> None:
    """Start from the weights of `init_from`, and say what was taken.

    Raises:
        WeightsError: they cannot be read, or do not fit.
    """
    from pytorch_lightning.utilities import rank_zero_only

    from ssd_lightning.detector import find_checkpoint
    from ssd_lightning.models.foreign_names import NETWORKS
    from ssd_lightning.models.weights import start_from
    from ssd_lightning.visualization.tables import print_weights

    loaded = start_from(
        net,
        find_checkpoint(Path(config.init_from)),
        class_names=class_names,
        # A normalisation that the command line states is meant; else the weights bring their own.
        keep_normalization=config.net.normalization is not None,
    )
    rank_zero_only(print_weights)(f"{config.init_from}: {loaded.origin.source}", loaded.kept, loaded.anew)
    if loaded.other_priors:
        log.warning("%s: %s; boxes start out wrong by that", config.init_from, loaded.other_priors)
    if loaded.origin.source in NETWORKS and not loaded.anew:
        log.info("the class heads are kept: the file's %d classes have to be yours, in its order", net.num_classes)


def wanted_callbacks(callbacks: Iterable[Any], trainer: "DictConfig") -> list[Any]:
    """Leave out the callbacks that the trainer's switches for progress bar and checkpoints turn off."""
    from pytorch_lightning.callbacks import Checkpoint, ProgressBar

    off: list[type] = [] if trainer.enable_progress_bar else [ProgressBar]
    off += [] if trainer.enable_checkpointing else [Checkpoint]
    return [callback for callback in callbacks if not isinstance(callback, tuple(off))]


def check_resumed_classes(checkpoint: Path, class_names: tuple[str, ...]) -> None:
    """Refuse to continue a run on data with other classes.

    Raises:
        WeightsError: the classes differ, or the file is no checkpoint.
    """
    from ssd_lightning.errors import WeightsError
    from ssd_lightning.models.files import read_checkpoint

    trained = tuple(read_checkpoint(checkpoint).get("detector", {}).get("class_names", ()))
    if trained != class_names:
        raise WeightsError(
            f"resume={checkpoint}: trained on the classes {', '.join(trained)}; the data have {', '.join(class_names)}"
        )


def best_checkpoint(trainer: Any) -> str | None:
    """Find the checkpoint with the best validation score, else the last one; None if none was written."""
    written = [callback.best_model_path for callback in trainer.checkpoint_callbacks]
    return next((path for path in written if path), None)


def report(module: "SSDModule", scores: dict[str, float], checkpoint: str | None) -> None:
    """Print the scores of the last evaluation and where the checkpoint lies."""
    from ssd_lightning.visualization.tables import print_scores

    stage = "test" if "test/map_11point" in scores else "val"
    per_class = {name: scores.get(f"{stage}/ap_11point/{name}", float("nan")) for name in module.class_names}
    summary = {name: scores[f"{stage}/{name}"] for name in SUMMARY if f"{stage}/{name}" in scores}
    if summary:
        title = "test pictures" if stage == "test" else "validation pictures, last epoch"
        print_scores(title, {"AP 11-point": per_class}, summary)
    if checkpoint:
        print(f"checkpoint: {os.path.relpath(checkpoint)}", file=sys.stderr)


SUMMARY = ("map_11point", "map_area", "map_50", "map")

if __name__ == "__main__":
    main()
