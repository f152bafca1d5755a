"""One run of `ssd_lightning.train`: its directory, the checkpoint it resumes from, its record and its result."""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only

from ssd_lightning.analysis.health import background_issues, unscored_issues
from ssd_lightning.command_line import CommandLine
from ssd_lightning.data.fingerprint import fingerprint
from ssd_lightning.data.stages import STAGES
from ssd_lightning.digest import config_digest
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.reporting.page import try_report
from ssd_lightning.run_dirs import is_restarted, why_new
from ssd_lightning.run_files import RECORD, RESULT, read_json, write_json
from ssd_lightning.sweeps.processes import is_job
from ssd_lightning.training import DetectionDataModule, SSDModule
from ssd_lightning.training.budget import TrainingBudget
from ssd_lightning.training.devices import describe_batch, find_launch, shared_batch
from ssd_lightning.training.fault_tolerance.resumption import (
    begin_directory,
    check_fits,
    check_work_is_left,
    find_resumable,
    hold_directory,
    log_differences,
)
from ssd_lightning.training.record import (
    earlier_starts,
    log_changed_data,
    read_record,
    run_record,
    write_result,
    write_surroundings,
)
from ssd_lightning.training.trainer_settings import warn_of_overfitting, warn_of_unvalidated_epochs
from ssd_lightning.visualization.tables import counted, print_scores

log = logging.getLogger(__name__)

FEW_VALIDATION_IMAGES = 20

SUMMARY = ("map_11point", "map_area", "map_50", "map")


class Run:
    """Locks the directory, decides where the run starts, and writes its files. Only the first rank writes.

    Args:
        config: composed configuration. Automatic settings may be replaced by their values later.
        directory: directory of the run.
        overrides: overrides of the command line.

    Attributes:
        is_finished: whether `resume=auto` finds that this run has already ended; `scores` are its results.
        resume: checkpoint to resume from; None starts from scratch.

    Raises:
        UserError: another process uses the directory, or the checkpoint is missing or damaged.
    """

    def __init__(self, config: DictConfig, *, directory: Path, overrides: Sequence[str]) -> None:
        self.config = config
        self.directory = directory
        self.overrides = list(overrides)
        self.digest = config_digest(self.settings)  # before automatic settings are resolved, as in a sweep
        self.is_first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
        self.resume: Path | None = None
        self._goes_on = config.resume or ("auto" if is_restarted() else None)
        has_waited = self.is_first and hold_directory(directory)
        result = read_json(directory / RESULT) if self._goes_on == "auto" else None
        self.is_finished = result is not None and result["digest"] == self.digest
        self.scores: dict[str, float] = {}
        if result is not None and self.is_finished:
            if has_waited and find_launch(os.environ) is not None:  # other ranks found it unfinished
                raise ConfigurationError(
                    f"the run in {directory} ended while this one waited for it; there is nothing to do"
                )
            log.info("the run in %s finished at %s; there is nothing to do", directory, result["finished"])
            self.scores = result["scores"]
        elif self._goes_on == "auto":
            self.resume = find_resumable(directory)
        elif self._goes_on:
            self.resume = find_resumable(Path(self._goes_on), required=True)

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as plain containers."""
        return OmegaConf.to_container(self.config, resolve=True)  # type: ignore[return-value]

    def check_work_is_left(self, budget: TrainingBudget | None) -> None:
        """Refuse to resume another run that has already reached this run's limits."""
        if self.resume is not None and self._goes_on != "auto":
            limits = {"max_epochs": self.config.trainer.max_epochs, "max_steps": self.config.trainer.max_steps}
            check_work_is_left(self.resume, **limits, budget=None if budget is None else budget.seconds)

    def begin(self, data: DetectionDataModule, module: SSDModule) -> None:
        """Check that the checkpoint fits, log where the run starts, and remove results that are newer.

        Raises:
            WeightsError: classes or network differ from those of the checkpoint.
        """
        if self.resume is not None:
            check_fits(self.resume, tuple(data.class_names), module.net)
        if not self.is_first:
            return
        self._warn_about_data(data)
        begin_directory(self.directory, self.resume)
        if self.resume is not None:
            log_differences(self.resume, self.settings)
        elif self._goes_on and not is_job():
            why = why_new(self.directory, self.overrides)
            log.info("resume=auto starts a new run in %s: %s", self.directory, why)

    def _warn_about_data(self, data: DetectionDataModule) -> None:
        """Warn if images without objects teach nothing, no checkpoint can be selected, or there is nothing to test."""
        if self.config.test and not data.stages.has("test"):
            log.warning("test=true has no effect: this data set has no test split")
        annotations = data.dataset("train").annotations
        issues = background_issues(
            images=len(annotations),
            without_objects=int((annotations.counts == 0).sum()),
            min_negatives=OmegaConf.select(self.config, "loss.class_loss.min_negatives"),
        )
        if data.stages.has("val"):
            annotations = data.dataset("val").annotations
            objects = int((~annotations.objects().difficult).sum())
            issues += unscored_issues(images=len(annotations), objects=objects)
        for issue in issues:
            log.warning(issue.sentence)

    def record_start(
        self, data: DetectionDataModule, module: SSDModule, trainer: Trainer, *, fitted: dict[str, Any] | None
    ) -> None:
        """Write what is needed to repeat the run. Warn if the data differ from those of the resumed or repeated run.

        The loggers of the trainer get the record too. `fitted` says how priors were fitted to the data, if they were.
        """
        if not self.is_first:
            return
        splits = [stage for stage in STAGES if stage != "test" or self.config.test]
        datasets = {split: data.dataset(split) for split in splits if data.stages.has(split)}
        contents = bool(self.config.data.get("checksum"))
        fingerprints: dict[str, Any] = {
            split: fingerprint(dataset.annotations, dataset.class_names, contents=contents)
            for split, dataset in datasets.items()
        }
        repeated = CommandLine.current().repeated_run
        earlier = None if self.resume is None else self.resume.parent.parent
        for run in (earlier, repeated):
            if run is not None:
                log_changed_data(read_record(run), fingerprints, run=run)
        goes_on_here = earlier is not None and earlier.resolve() == self.directory
        images = len(data.dataset("train"))
        batch = shared_batch(self.config.data.batch_size, trainer, images=images)
        record = run_record(
            self.config.seed,
            class_names=list(data.class_names),
            priors=len(module.net.priors_cxcywh),
            fitted_priors=read_record(earlier).get("fitted_priors") if earlier else fitted,
            batch=batch,
            splits=data.stages.split_names,
            data=fingerprints,
            repeats=str(repeated) if repeated else None,
            goes_on_from=str(self.resume) if self.resume is not None else None,
            earlier=earlier_starts(read_record(self.directory)) if goes_on_here else [],
        )
        OmegaConf.save(self.config, self.directory / "config.yaml", resolve=True)
        write_json(self.directory / RECORD, record)
        write_surroundings(self.directory)
        for logger in trainer.loggers:
            logger.log_hyperparams({**self.settings, "run": record})
        log.info("%s", describe_batch(batch))
        if batch["batch_size"] < self.config.data.batch_size:
            log.warning(
                "that is less than data.batch_size=%d: there are %d training images",
                self.config.data.batch_size,
                images,
            )
        if data.stages.has("val"):
            warn_of_unvalidated_epochs(trainer)
        warn_of_overfitting(self.config.trainer.overfit_batches, self.config.data)
        samples = data.train_sampler().samples
        if samples > images and not self.config.trainer.overfit_batches:
            log.info("%d samples in each epoch, since images of rare classes are repeated (data.repeat_rare)", samples)
        is_held_out = data.stages.has("val") and data.stages.arguments("val").get("part") == "val"
        validation = described_validation(len(datasets["val"]) if "val" in datasets else 0, is_held_out=is_held_out)
        log.info("%d training images, %s; %d priors, run in %s", images, validation, record["priors"], self.directory)

    def finish(
        self,
        scores: Mapping[str, float],
        checkpoint: str | None,
        *,
        class_names: Sequence[str],
        spent: dict[str, Any] | None,
    ) -> None:
        """Print the scores of the last evaluation, and write the result and the report.

        `scores` are the last values of all that was logged, `checkpoint` is the path of the best one, and `spent` the
        record of the time budget at the end of the training.
        """
        if not self.is_first:
            return
        if spent is not None:
            write_json(self.directory / RECORD, read_record(self.directory) | {"budget": spent})
        print_summary(scores, class_names)
        if checkpoint:
            print(f"checkpoint: {os.path.relpath(checkpoint)}", file=sys.stderr)
        write_result(self.directory, digest=self.digest, scores=scores, checkpoint=checkpoint)
        if self.config.trainer.fast_dev_run:
            print("trainer.fast_dev_run: neither checkpoints nor a report are written", file=sys.stderr)
        elif self.config.report and (page := try_report(self.directory)):
            print(f"report:     {os.path.relpath(page)}", file=sys.stderr)


def print_summary(scores: Mapping[str, float], class_names: Sequence[str]) -> None:
    """Print the scores of the test images, else those of the last validation."""
    stage = "test" if "test/map_11point" in scores else "val"
    per_class = {name: scores.get(f"{stage}/ap_11point/{name}", float("nan")) for name in class_names}
    summary = {name: scores[f"{stage}/{name}"] for name in SUMMARY if f"{stage}/{name}" in scores}
    if summary:
        title = "test images" if stage == "test" else "validation images, last epoch"
        print_scores(title, {"AP 11-point": per_class}, summary)
    else:
        print("scores:     none, since nothing was validated", file=sys.stderr)


def described_validation(images: int, *, is_held_out: bool) -> str:
    """Say how many images choose the best checkpoint, and whether they are too few to trust their scores."""
    if images == 0:
        return "no validation images: the last weights count"
    few = "; scores on so few are rough" if images < FEW_VALIDATION_IMAGES else ""
    return f"{counted(images, 'validation image')}{' held out' if is_held_out else ''}{few}"
