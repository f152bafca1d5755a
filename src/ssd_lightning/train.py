"""`python -m ssd_lightning.train`: train a detector, and write its checkpoints, scores and report."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.overrides import let_epochs_replace_budget
from ssd_lightning.run_command import run_command
from ssd_lightning.run_dirs import command_start
from ssd_lightning.sweeps.plan import plan_sweep
from ssd_lightning.sweeps.processes import end_with_sweep

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pytorch_lightning import Trainer


def main() -> None:
    """Run the command."""
    started = command_start("ssd_lightning.train", "ssd-train")
    end_with_sweep()
    run_command("train", partial(train, started=started), plan=plan_sweep)


def train(config: "DictConfig", *, started: float) -> dict[str, float] | float:
    """Train one run that `started` at a time of the monotonic clock. Inside a sweep, the job runs in its own process.

    Returns:
        The last value of every logged metric; for a job of a sweep, the objective that the sweeper reads.

    Raises:
        UserError: a setting, the data or a weights file cannot be used.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    overrides: Any = OmegaConf.to_container(hydra.overrides.task)  # as written, with their references
    let_epochs_replace_budget(config, overrides)
    if config.seeds is not None:
        raise ConfigurationError(f"seeds={config.seeds} has an effect on the command line only, as seeds=, without +")
    if hydra.mode == RunMode.MULTIRUN:
        from ssd_lightning.sweeps.task import run_as_job

        return run_as_job(config)

    from ssd_lightning import assembly
    from ssd_lightning.auto_settings import resolve_augmentation, resolve_priors
    from ssd_lightning.initial_weights import check_start
    from ssd_lightning.run import Run
    from ssd_lightning.training.fault_tolerance.non_finite import advise_on_memory
    from ssd_lightning.training.fault_tolerance.ranks import end_with_launcher
    from ssd_lightning.training.fault_tolerance.signals import end_at_signals
    from ssd_lightning.training.loggers import close_loggers
    from ssd_lightning.training.trainer_settings import refuse_settings

    end_at_signals("while nothing was trained")
    end_with_launcher()
    ranks = assembly.set_up_machine(config)
    run = Run(config, directory=Path(hydra.runtime.output_dir), overrides=overrides)
    if run.is_finished:
        return run.scores
    budget = assembly.make_budget(config, started=started)
    run.check_work_is_left(budget)
    check_start(config, run.resume)
    data = assembly.make_data(config)
    resolve_augmentation(config, data)
    fitted = resolve_priors(config, data, run.resume)
    module = assembly.make_module(config, data, ranks=ranks, checkpoint=run.resume, budget=budget)
    run.begin(data, module)
    trainer = assembly.make_trainer(config, run_dir=run.directory, ranks=ranks, checkpoint=run.resume, budget=budget)
    loggers = trainer.loggers
    run.record_start(data, module, trainer, fitted=fitted)
    memory = advise_on_memory(
        batch_size=config.data.batch_size,
        ranks=ranks,
        accumulate=config.trainer.accumulate_grad_batches,
        precision=str(config.trainer.precision),
    )
    with refuse_settings(), memory:
        trainer.fit(module, datamodule=data, ckpt_path=run.resume)
    checkpoint = best_checkpoint(trainer)
    spent = None if budget is None else budget.record  # a test restores what the best checkpoint had spent
    scores = logged_values(trainer)
    if config.test and data.stages.has("test"):
        trainer.test(module, datamodule=data, ckpt_path=checkpoint, verbose=False)
    elif run.resume is not None and not trainer.callback_metrics and data.stages.has("val"):
        # Stopped after its last epoch but before the end of the run: the loggers already have this validation.
        trainer.loggers = []
        trainer.validate(module, datamodule=data, ckpt_path=run.resume, verbose=False)
    scores |= logged_values(trainer)  # a test clears the metrics of the training
    run.finish(scores, checkpoint, class_names=module.class_names, spent=spent)
    close_loggers(loggers)
    return scores


def logged_values(trainer: "Trainer") -> dict[str, float]:
    """Return the last value of every metric logged since training or test began."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if value.numel() == 1}


def best_checkpoint(trainer: Any) -> str | None:
    """Return the checkpoint with the best validation score, else the last one; None if none was written."""
    written = [callback.best_model_path for callback in trainer.checkpoint_callbacks]
    return next((path for path in written if path), None)


if __name__ == "__main__":
    main()
