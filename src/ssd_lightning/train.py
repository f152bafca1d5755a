"""`python -m ssd_lightning.train`: compose a run, train it, record it."""

import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd_lightning.config import run_command
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.overrides import repeated_run
from ssd_lightning.run_dirs import command_start
from ssd_lightning.sweeps.parent import end_with_parent
from ssd_lightning.sweeps.plan import rewrite_command_line

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pytorch_lightning import Trainer

    from ssd_lightning.data.detection_data import Stage
    from ssd_lightning.training import DetectionDataModule, SSDModule

log = logging.getLogger(__name__)


def main() -> None:
    """Run the command."""
    started = command_start("ssd_lightning.train", "ssd-train")
    end_with_parent()
    rewrite_command_line()
    run_command("train", partial(train, started=started))


def train(config: "DictConfig", *, started: float) -> dict[str, float] | float:
    """Train one run. Inside a sweep, the job runs in its own process.

    Args:
        config: the composed `conf/train.yaml`.
        started: start time of the command, on the monotonic clock.

    Returns:
        The last value of every logged metric; for a job of a sweep, the objective that the sweeper reads.

    Raises:
        UserError: a setting, the data or a weights file cannot be used.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if HydraConfig.get().mode == RunMode.MULTIRUN:
        from ssd_lightning.sweeps.task import run_as_job

        return run_as_job(config)

    from omegaconf import OmegaConf
    from pytorch_lightning.utilities import rank_zero_only

    from ssd_lightning.assembly import (
        check_start,
        make_budget,
        make_data,
        make_module,
        make_trainer,
        set_up_machine,
        settle_augmentation,
        settle_priors,
    )
    from ssd_lightning.digest import config_digest
    from ssd_lightning.reporting.page import try_report
    from ssd_lightning.run_dirs import is_restarted
    from ssd_lightning.training.devices import find_launch
    from ssd_lightning.training.fault_tolerance.non_finite import explain_memory
    from ssd_lightning.training.fault_tolerance.ranks import end_with_launcher
    from ssd_lightning.training.fault_tolerance.resumption import (
        begin_directory,
        check_classes,
        check_network,
        check_work_is_left,
        choose_checkpoint,
        hold_directory,
    )
    from ssd_lightning.training.fault_tolerance.signals import end_at_signals
    from ssd_lightning.training.record import read_record, read_result, write_record, write_result

    end_at_signals("while nothing was trained")
    end_with_launcher()
    ranks = set_up_machine(config)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    digest = config_digest(plain)  # before automatic settings are resolved, as in a sweep
    budget = make_budget(config, started=started)
    goes_on = config.resume or ("auto" if is_restarted() else None)
    is_first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    if is_first:
        has_waited = hold_directory(run_dir)
    if goes_on == "auto" and (result := read_result(run_dir)) is not None and result["digest"] == digest:
        if is_first and has_waited and find_launch(os.environ) is not None:  # other ranks found it unfinished
            raise ConfigurationError(f"the run in {run_dir} ended while this one waited for it; there is nothing to do")
        log.info("the run in %s finished at %s; there is nothing to do", run_dir, result["finished"])
        return result["scores"]
    resume = choose_checkpoint(goes_on, run_dir)
    if resume is not None and goes_on != "auto":
        limits = {"max_epochs": config.trainer.max_epochs, "max_steps": config.trainer.max_steps}
        check_work_is_left(resume, **limits, budget=None if budget is None else budget.seconds)
    check_start(config, resume)
    data = make_data(config)
    if resume is not None:
        check_classes(resume, data.class_names)
    settle_augmentation(config, data)
    priors = settle_priors(config, data, resume)
    plain = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    images = len(data.dataset("train"))
    module = make_module(
        config,
        plain,
        tuple(data.class_names),
        images=images,
        ranks=ranks,
        checkpoint=resume,
        budget=budget,
        resize=data.resize,
    )
    if resume is not None:
        check_network(resume, module.net)
    if is_first:
        warn_about_data(config, data)
        if goes_on:
            log_start(resume, plain, run_dir)
        begin_directory(run_dir, resume)
    trainer = make_trainer(config, plain, run_dir=run_dir, ranks=ranks, checkpoint=resume, budget=budget)
    if is_first:
        record_start(config, plain, data, module, trainer, run_dir=run_dir, resume=resume, fitted=priors)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume)
    except (RuntimeError, MemoryError) as error:
        user_error = explain_memory(
            error,
            batch_size=config.data.batch_size,
            ranks=ranks,
            accumulate=config.trainer.accumulate_grad_batches,
            precision=str(config.trainer.precision),
        )
        if user_error is None:
            raise
        raise user_error from error
    checkpoint = best_checkpoint(trainer)
    scores = logged_values(trainer)
    if config.test and data.has("test"):
        trainer.test(module, datamodule=data, ckpt_path=checkpoint, verbose=False)
    elif resume is not None and not trainer.callback_metrics and data.has("val"):
        # Stopped after its last epoch but before the end of the run: the loggers already have this validation.
        trainer.loggers = []
        trainer.validate(module, datamodule=data, ckpt_path=resume, verbose=False)
    scores |= logged_values(trainer)  # a test clears the metrics of the training
    if is_first:
        if budget is not None:
            write_record(run_dir, read_record(run_dir) | {"budget": budget.record})
        report(module, scores, checkpoint)
        write_result(run_dir, digest=digest, scores=scores, checkpoint=checkpoint)
        if config.report and (page := try_report(run_dir)):
            print(f"report:     {os.path.relpath(page)}", file=sys.stderr)
    return scores


def log_start(resume: Path | None, plain: dict[str, Any], run_dir: Path) -> None:
    """Log where a run resumes and which settings differ, or why it starts from scratch."""
    from hydra.core.hydra_config import HydraConfig

    from ssd_lightning.run_dirs import why_new
    from ssd_lightning.sweeps.parent import is_job
    from ssd_lightning.training.fault_tolerance.resumption import log_checkpoint, log_differences

    if resume is not None:
        log_checkpoint(resume)
        log_differences(resume, plain)
    elif not is_job():
        why = why_new(run_dir, list(HydraConfig.get().overrides.task))
        log.info("resume=auto starts a new run in %s: %s", run_dir, why)


def warn_about_data(config: "DictConfig", data: "DetectionDataModule") -> None:
    """Warn if images without objects teach nothing, or if no checkpoint can be selected."""
    from omegaconf import OmegaConf

    from ssd_lightning.analysis.health import background_issues, unscored_issues

    records = data.dataset("train").records
    issues = background_issues(
        images=len(records),
        without_objects=sum(not len(record.labels) for record in records),
        min_negatives=OmegaConf.select(config, "loss.class_loss.min_negatives"),
    )
    if data.has("val"):
        records = data.dataset("val").records
        objects = sum(int((~record.difficult).sum()) for record in records)
        issues += unscored_issues("val", images=len(records), objects=objects)
    for issue in issues:
        log.warning(issue.sentence)


def record_start(
    config: "DictConfig",
    plain: dict[str, Any],
    data: "DetectionDataModule",
    module: "SSDModule",
    trainer: "Trainer",
    *,
    run_dir: Path,
    resume: Path | None,
    fitted: dict[str, Any] | None,
) -> None:
    """Write what is needed to repeat the run. Warn if the data differ from those of the resumed or repeated run."""
    from omegaconf import OmegaConf

    from ssd_lightning.training.devices import device_batch_size
    from ssd_lightning.training.record import (
        data_fingerprints,
        earlier_starts,
        log_changed_data,
        read_record,
        run_record,
        write_record,
        write_surroundings,
    )

    splits: list[Stage] = ["train", "val", "test"] if config.test else ["train", "val"]
    datasets = {split: data.dataset(split) for split in splits if data.has(split)}
    fingerprints = data_fingerprints(datasets, contents=bool(config.data.get("checksum")))
    repeated = repeated_run()
    gone_on_with = resume.parent.parent if resume is not None else None
    for earlier in (gone_on_with, repeated):
        if earlier is not None:
            log_changed_data(read_record(earlier), fingerprints, run=earlier)
    devices, accumulate, images = trainer.world_size, trainer.accumulate_grad_batches, len(data.dataset("train"))
    share = device_batch_size(config.data.batch_size, ranks=devices, accumulate=accumulate, images=images)
    batch = {
        "batch_size": share * devices * accumulate,
        "devices": devices,
        "accumulate_grad_batches": accumulate,
        "device_batch_size": share,
    }
    record = run_record(
        config.seed,
        class_names=list(data.class_names),
        priors=len(module.net.priors_cxcywh),
        fitted_priors=read_record(gone_on_with).get("fitted_priors") if gone_on_with else fitted,
        batch=batch,
        splits=data.split_names,
        data=fingerprints,
        repeats=str(repeated) if repeated else None,
        goes_on_from=str(resume) if resume is not None else None,
        earlier=earlier_starts(read_record(run_dir)) if gone_on_with and gone_on_with.resolve() == run_dir else [],
    )
    OmegaConf.save(config, run_dir / "config.yaml", resolve=True)
    write_record(run_dir, record)
    write_surroundings(run_dir)
    for logger in trainer.loggers:
        logger.log_hyperparams({**plain, "run": record})
    log.info("%s", describe_batch(batch))
    if batch["batch_size"] < config.data.batch_size:
        log.warning(
            "that is less than data.batch_size=%d: there are %d training images", config.data.batch_size, images
        )
    samples = data.train_sampler().samples
    if samples > images:
        log.info("%d samples in each epoch, since images of rare classes are repeated (data.repeat_rare)", samples)
    log.info("%d training images, %d priors, run in %s", images, record["priors"], run_dir)


def describe_batch(batch: dict[str, int]) -> str:
    """Describe the images of one optimiser step, and how they are divided."""
    text = f"{batch['batch_size']} images in each optimiser step"
    if batch["devices"] > 1:
        text += f", shared by {batch['devices']} devices"
    if batch["accumulate_grad_batches"] > 1:
        text += f", gradients of {batch['accumulate_grad_batches']} batches accumulated"
    return (
        text if batch["device_batch_size"] == batch["batch_size"] else f"{text}: {batch['device_batch_size']} at a time"
    )


def logged_values(trainer: "Trainer") -> dict[str, float]:
    """Return the last value of every metric logged since training or test began."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if value.numel() == 1}


def best_checkpoint(trainer: Any) -> str | None:
    """Return the checkpoint with the best validation score, else the last one; None if none was written."""
    written = [callback.best_model_path for callback in trainer.checkpoint_callbacks]
    return next((path for path in written if path), None)


def report(module: "SSDModule", scores: dict[str, float], checkpoint: str | None) -> None:
    """Print the scores of the last evaluation, if any, and the path of the checkpoint."""
    from ssd_lightning.visualization.tables import print_scores

    stage = "test" if "test/map_11point" in scores else "val"
    per_class = {name: scores.get(f"{stage}/ap_11point/{name}", float("nan")) for name in module.class_names}
    summary = {name: scores[f"{stage}/{name}"] for name in SUMMARY if f"{stage}/{name}" in scores}
    if summary:
        title = "test images" if stage == "test" else "validation images, last epoch"
        print_scores(title, {"AP 11-point": per_class}, summary)
    else:
        print("scores:     none, since nothing was validated", file=sys.stderr)
    if checkpoint:
        print(f"checkpoint: {os.path.relpath(checkpoint)}", file=sys.stderr)


SUMMARY = ("map_11point", "map_area", "map_50", "map")

if __name__ == "__main__":
    main()
