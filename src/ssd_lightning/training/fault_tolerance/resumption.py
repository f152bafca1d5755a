"""Resuming a stopped run, with the same result as without the stop."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from ssd_lightning.digest import differences
from ssd_lightning.errors import ConfigurationError, WeightsError, listed
from ssd_lightning.inference.checkpoints import find_checkpoint, fitting_weights, no_checkpoint
from ssd_lightning.models.config import from_config, to_config
from ssd_lightning.models.files import read_checkpoint
from ssd_lightning.models.ssd import SSD
from ssd_lightning.run_files import DASHBOARD, EVALUATIONS, RESULT, read_rows, write_rows
from ssd_lightning.training.fault_tolerance.checkpoint_io import LAST, PREVIOUS, check_intact

log = logging.getLogger(__name__)

MOST_DIFFERENCES = 5
RESUMABLE = (LAST, PREVIOUS, "best.ckpt")
"""The newest first."""
NO_WEIGHTS = ("image_size", "levels", "clip_priors", "normalization")
"""Settings of the network that the shapes of its weights do not show."""


def find_resumable(path: Path, *, required: bool = False) -> Path | None:
    """Find the newest intact checkpoint of a run, or check a given file.

    Args:
        path: a run directory, or a checkpoint file. In a directory, a damaged file is logged and the next one is tried.
        required: refuse a directory without checkpoints.

    Returns:
        The checkpoint. None if the directory has none.

    Raises:
        WeightsError: the given file is missing or damaged, or all checkpoints of the directory are.
    """
    if not path.is_dir():
        check_intact(find_checkpoint(path))
        read_checkpoint(path, mapped=True)
        return path
    damaged = []
    for name in RESUMABLE:
        candidate = path / "checkpoints" / name
        if not candidate.is_file():
            continue
        try:
            check_intact(candidate)
            read_checkpoint(candidate, mapped=True)
        except WeightsError as error:
            log.warning("%s; looking for an older one", error)
            damaged.append(name)
            continue
        if damaged:
            log.warning("resuming from %s instead", candidate)
        return candidate
    if damaged:
        raise WeightsError(f"all checkpoints in {path / 'checkpoints'} are damaged: {', '.join(damaged)}")
    if required:
        raise no_checkpoint(path / "checkpoints", RESUMABLE)
    return None


def check_fits(checkpoint: Path, class_names: tuple[str, ...], net: SSD) -> None:
    """Refuse to continue a run on data with different classes, or with a different network.

    Raises:
        WeightsError: the classes, the names or shapes of the weights, the input size, the priors or the normalisation
            differ, or the file is not a training checkpoint.
    """
    state = read_checkpoint(checkpoint, mapped=True)
    if "loops" not in state:
        raise WeightsError(
            f"resume={checkpoint} is not the checkpoint of a training: it has no optimiser and no position; init_from= "
            "starts a new run from its weights"
        )
    trained = tuple(state.get("detector", {}).get("class_names", ()))
    if trained != class_names:
        raise WeightsError(
            f"resume={checkpoint}: trained on the classes {', '.join(trained)}; the data have {', '.join(class_names)}"
        )
    try:
        fitting_weights(net, state.get("state_dict", {}), checkpoint)
    except WeightsError as error:
        raise WeightsError(f"resume={checkpoint} has a different network than this command builds: {error}") from error
    specs = (state.get("detector", {}).get("network", {}), to_config(net))
    there, here = (
        {"clip_priors": False} | {key: from_config(spec[key]) for key in NO_WEIGHTS if key in spec} for spec in specs
    )
    if differs := [key for key in there if key in here and there[key] != here[key]]:
        raise WeightsError(
            f"resume={checkpoint} has a different network than this command builds: {', '.join(differs)} differ; "
            "init_from= starts a new run from its weights"
        )


def check_work_is_left(
    checkpoint: Path, *, max_epochs: int | None, max_steps: int, budget: float | None = None
) -> None:
    """Refuse to start a run that has nothing left to train.

    Args:
        checkpoint: checkpoint that a run in another directory resumes from.
        max_epochs: limit of the new run in epochs. None or -1: no limit.
        max_steps: limit in steps. -1: no limit.
        budget: limit in seconds. None: no limit.

    Raises:
        WeightsError: the checkpoint has already reached a limit.
    """
    state = read_checkpoint(checkpoint, mapped=True)
    spent = state.get("callbacks", {}).get("BudgetCallback", {})
    used = spent.get("seconds" if spent.get("is_spent") else "used_seconds", 0.0)
    if budget is not None and budget <= used:
        raise WeightsError(
            f"resume={checkpoint} has trained for {spent['used_seconds']:.0f} s, and budget={budget:g}s leaves "
            f"nothing; raise it to train further, or evaluate the checkpoint: python -m ssd_lightning.evaluate"
        )
    epoch, step = state.get("DetectionDataModule", {}).get("epoch", 0), state.get("global_step", 0)
    for name, done, limit in (("epochs", epoch, max_epochs), ("steps", step, max_steps)):
        if limit is not None and 0 <= limit <= done:
            raise WeightsError(
                f"resume={checkpoint} has trained for {done} {name}, and trainer.max_{name}={limit} leaves nothing to "
                f"train; raise it to train further, or evaluate the checkpoint: python -m ssd_lightning.evaluate"
            )


def hold_directory(run_dir: Path, *, seconds: float = 30) -> bool:
    """Lock a run directory against other processes until this process ends.

    Waits some seconds for another process: the data workers of a killed run live a little longer.

    Returns:
        Whether it had to wait. The run in the directory may have finished in the meantime.

    Raises:
        ConfigurationError: a live run holds the lock.
    """
    if run_dir.resolve() in _held:
        return False
    lock = FileLock(run_dir / ".lock")
    waited = False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("%s is in use; waiting up to %d s for the run there to end", run_dir, seconds)
        waited = True
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            raise ConfigurationError(
                f"a run in {run_dir} is still in progress; two runs would overwrite each other's files"
            ) from None
    _held[run_dir.resolve()] = lock
    return waited


_held: dict[Path, FileLock] = {}
"""Keeps the locks from being garbage-collected. The system releases them when the process ends."""


def log_differences(checkpoint: Path, config: Mapping[str, Any]) -> None:
    """Warn if a run is resumed, from a checkpoint in its directory, with another resolved configuration."""
    try:
        begun_with = yaml.safe_load((checkpoint.parent.parent / "config.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return
    if isinstance(begun_with, dict) and (lines := differences(begun_with, config)):
        shown = listed(lines, MOST_DIFFERENCES, separator="\n  ")
        log.warning("the run continues with different settings (then -> now):\n  %s", shown)


def begin_directory(run_dir: Path, checkpoint: Path | None) -> None:
    """Log where a run resumes, and remove the results of an earlier run that are newer than the checkpoint.

    Otherwise the results of an earlier run in the same directory could be taken for those of this run. A run that
    resumes in a new directory copies the best checkpoint, because the checkpoint it resumes from refers to it, the
    evaluation of that checkpoint, and the log so far. Without a checkpoint the run starts from scratch.
    """
    metrics, kept, evaluations = run_dir / "metrics.csv", run_dir / "checkpoints", run_dir / EVALUATIONS
    earlier = None if checkpoint is None else checkpoint.parent.parent
    is_same = earlier is not None and earlier.resolve() == run_dir.resolve()
    stale = [run_dir / RESULT, evaluations / "test.npz"]
    if not is_same:
        dashboard = run_dir / DASHBOARD
        stale += [metrics, evaluations / "val.npz", *kept.glob("*.ckpt")]
        stale += [*dashboard.rglob("*.jpg"), *dashboard.rglob("*.png")]
    for path in stale:
        path.unlink(missing_ok=True)
    if checkpoint is None or earlier is None:
        return
    state = read_checkpoint(checkpoint, mapped=True)
    position = state.get("DetectionDataModule", {})
    log.info("resuming from %s: epoch %s, step %s", checkpoint, position.get("epoch", 0), state.get("global_step"))
    if not is_same:
        best, evaluation = checkpoint.with_name("best.ckpt"), earlier / EVALUATIONS / "val.npz"
        for source, folder in ((best, kept), (evaluation, evaluations), (earlier / metrics.name, run_dir)):
            if source.is_file():
                folder.mkdir(exist_ok=True)
                shutil.copyfile(source, folder / source.name)
    batches = state["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["current"]
    was_validating = batches["ready"] > batches["completed"]  # the validation is repeated
    keep_rows(metrics, steps=state["global_step"], with_last_validation=not was_validating)


def keep_rows(path: Path, *, steps: int, with_last_validation: bool) -> None:
    """Remove the rows of `metrics.csv` after a checkpoint of `steps`, because the resumed run writes them again.

    `with_last_validation`: the checkpoint was saved after the validation that follows its last step.
    """
    kept = [row for row in read_rows(path) if _is_before(row, steps, with_last_validation)]
    if kept:
        write_rows(path, kept)
    else:
        path.unlink(missing_ok=True)


def _is_before(row: dict[str, str], steps: int, with_last_validation: bool) -> bool:
    step = row.get("step", "")
    if not step.isdigit() or any(row[name] for name in row if name.startswith("test/")):
        return False  # a truncated line, or a row from the end of the run
    is_validation = any(row[name] for name in row if name.startswith("val/"))
    # Lightning's log counts steps from 0. A validation has the number of the step before it.
    return int(step) < steps - (1 if is_validation and not with_last_validation else 0)
