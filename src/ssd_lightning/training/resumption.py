"""Going on where a run was stopped, so that it ends as if it had not been."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from ssd_lightning.detector import load_weights
from ssd_lightning.digest import differences
from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.models.files import read_checkpoint
from ssd_lightning.models.ssd import SSD
from ssd_lightning.run_files import RESULT
from ssd_lightning.training.checkpoint import LAST, PREVIOUS, check_intact
from ssd_lightning.training.csv_log import keep_rows

log = logging.getLogger(__name__)


def find_resumable(path: Path, *, order: Sequence[str] = (LAST, PREVIOUS, "best.ckpt")) -> Path | None:
    """Find the newest checkpoint of a run that is whole, or check the one that is named.

    Args:
        path: a run directory, or a checkpoint file.
        order: names in a run's `checkpoints/`, the newest first. A damaged one is told and the next one taken.

    Returns:
        The checkpoint; None for a directory without any.

    Raises:
        WeightsError: the named file is missing or damaged, or all of a directory's are.
    """
    if not path.is_dir():
        if not path.is_file():
            raise WeightsError(f"there is no checkpoint {path}")
        check_intact(path)
        read_checkpoint(path)
        return path
    damaged = []
    for name in order:
        candidate = path / "checkpoints" / name
        if not candidate.is_file():
            continue
        try:
            check_intact(candidate)
            read_checkpoint(candidate)
        except WeightsError as error:
            log.warning("%s; looking for an older one", error)
            damaged.append(name)
            continue
        if damaged:
            log.warning("going on from %s instead", candidate)
        return candidate
    if damaged:
        raise WeightsError(f"all checkpoints in {path / 'checkpoints'} are damaged: {', '.join(damaged)}")
    return None


def choose_checkpoint(resume: str | None, run_dir: Path) -> Path | None:
    """Find what a run goes on from.

    Args:
        resume: `auto` is what lies in the run's own directory, if anything does; else a checkpoint or another run's
            directory; None starts from scratch.
        run_dir: of this run.

    Raises:
        WeightsError: what is named is missing or damaged.
    """
    if resume is None:
        return None
    if resume != "auto":
        found = find_resumable(Path(resume))
        if found is None:
            raise WeightsError(f"resume={resume}: there is no checkpoint in {Path(resume) / 'checkpoints'}")
        return found
    return find_resumable(run_dir)


def check_classes(checkpoint: Path, class_names: tuple[str, ...]) -> None:
    """Refuse to continue a run on data with other classes.

    Raises:
        WeightsError: the classes differ, or the file is no checkpoint.
    """
    trained = tuple(read_checkpoint(checkpoint).get("detector", {}).get("class_names", ()))
    if trained != class_names:
        raise WeightsError(
            f"resume={checkpoint}: trained on the classes {', '.join(trained)}; the data have {', '.join(class_names)}"
        )


def check_network(checkpoint: Path, net: SSD) -> None:
    """Refuse to continue a run with another network.

    Raises:
        WeightsError: names or shapes of the weights differ.
    """
    try:
        load_weights(net, read_checkpoint(checkpoint).get("state_dict", {}), checkpoint)
    except WeightsError as error:
        raise WeightsError(f"resume={checkpoint} is of another network than this command makes: {error}") from error


def check_work_is_left(
    checkpoint: Path, *, max_epochs: int | None, max_steps: int, budget: float | None = None
) -> None:
    """Refuse to begin a run that would have nothing to train.

    Args:
        checkpoint: that a run in another directory is to go on from.
        max_epochs: of the new run; None and -1 are no limit.
        max_steps: likewise; -1 is no limit.
        budget: likewise, in seconds; None is no limit.

    Raises:
        WeightsError: the run that wrote it came as far already.
    """
    state = read_checkpoint(checkpoint)
    spent = state.get("callbacks", {}).get("BudgetCallback", {})
    used = spent.get("seconds" if spent.get("is_spent") else "used_seconds", 0.0)
    if budget is not None and budget <= used:
        raise WeightsError(
            f"resume={checkpoint} has trained for {spent['used_seconds']:.0f} s, and budget={budget:g}s leaves "
            f"nothing; raise it to train on, or score what is there: python -m ssd_lightning.evaluate"
        )
    epoch, step = state.get("DetectionDataModule", {}).get("epoch", 0), state.get("global_step", 0)
    for name, done, limit in (("epochs", epoch, max_epochs), ("steps", step, max_steps)):
        if limit is not None and 0 <= limit <= done:
            raise WeightsError(
                f"resume={checkpoint} has {done} {name} behind it, and trainer.max_{name}={limit} leaves nothing to "
                f"train; raise it to train on, or score what is there: python -m ssd_lightning.evaluate"
            )


def log_checkpoint(checkpoint: Path) -> None:
    """Say where a run goes on."""
    state = read_checkpoint(checkpoint)
    epoch = state.get("DetectionDataModule", {}).get("epoch", 0)
    log.info("going on from %s: epoch %s, step %s", checkpoint, epoch, state.get("global_step"))


def hold_directory(run_dir: Path, *, seconds: float = 30) -> bool:
    """Keep other processes from running in the same directory until this one ends, however it ends.

    Args:
        run_dir: of this run.
        seconds: how long to wait: the data workers of a run that was killed live on for some.

    Returns:
        Whether it had to wait: the run there may have ended meanwhile.

    Raises:
        ConfigurationError: a run that lives has it.
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
                f"a run in {run_dir} is still going on; two would spoil each other's files"
            ) from None
    _held[run_dir.resolve()] = lock
    return waited


_held: dict[Path, FileLock] = {}
"""The system gives a lock back when its process ends; until then it must not be collected."""


def log_differences(checkpoint: Path, config: Mapping[str, Any], *, at_most: int = 5) -> None:
    """Warn where a run goes on with other settings than it was begun with.

    Args:
        checkpoint: in the directory of the run that is gone on with.
        config: of this run, resolved.
        at_most: as many lines.
    """
    try:
        begun_with = yaml.safe_load((checkpoint.parent.parent / "config.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return
    if isinstance(begun_with, dict) and (lines := differences(begun_with, config)):
        more = [f"and {len(lines) - at_most} more"] if len(lines) > at_most else []
        log.warning(
            "the run goes on with other settings than it was begun with (then -> now):\n  %s",
            "\n  ".join([*lines[:at_most], *more]),
        )


def begin_directory(run_dir: Path, checkpoint: Path | None) -> None:
    """Make a run's directory ready: what an earlier run left in it beyond the checkpoint is removed.

    An earlier run in a fixed directory must not pass for this one. A run that goes on in a directory of its own takes
    the best checkpoint along, since the one it goes on from names it.

    Args:
        run_dir: of this run.
        checkpoint: what it goes on from; None starts from scratch.
    """
    (run_dir / RESULT).unlink(missing_ok=True)
    metrics, kept = run_dir / "metrics.csv", run_dir / "checkpoints"
    if checkpoint is None:
        metrics.unlink(missing_ok=True)
        for stale in kept.glob("*.ckpt"):
            stale.unlink()
    elif checkpoint.resolve().parent == kept.resolve():
        state = read_checkpoint(checkpoint)
        seen = state.get("DetectionDataModule", {}).get("samples_seen", 0)
        keep_rows(metrics, steps=state["global_step"], with_last_validation=seen == 0)
    elif (best := checkpoint.with_name("best.ckpt")).is_file():
        kept.mkdir(exist_ok=True)
        shutil.copyfile(best, kept / best.name)
