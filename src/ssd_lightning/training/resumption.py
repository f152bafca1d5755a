"""Going on where a run was stopped, so that it ends as if it had not been."""

import logging
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from filelock import FileLock, Timeout
from torch import distributed as dist

from ssd_lightning.digest import differences
from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.models.files import read_checkpoint
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
            directory; None begins anew.
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
    found = find_resumable(run_dir)
    if found is None:
        log.info("resume=auto: there is nothing to go on from, so a new run begins in %s", run_dir)
    return found


def hold_directory(run_dir: Path, *, seconds: float = 30) -> None:
    """Keep other processes from running in the same directory until this one ends, however it ends.

    Args:
        run_dir: of this run.
        seconds: how long to wait: the data workers of a run that was killed live on for some.

    Raises:
        ConfigurationError: a run that lives has it.
    """
    if run_dir.resolve() in _held:
        return
    lock = FileLock(run_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("%s is in use; waiting up to %d s for the run there to end", run_dir, seconds)
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            raise ConfigurationError(
                f"a run in {run_dir} is still going on; two would spoil each other's files"
            ) from None
    _held.append(lock)


_held: list[FileLock] = []
"""The system gives a lock back when its process ends; until then it must not be collected."""


def tell_differences(checkpoint: Path, config: Mapping[str, Any], *, at_most: int = 5) -> None:
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
            "the run goes on with other settings than it was begun with:\n  %s", "\n  ".join([*lines[:at_most], *more])
        )


def begin_directory(run_dir: Path, checkpoint: Path | None) -> None:
    """Make a run's directory ready: what an earlier run left in it beyond the checkpoint is removed.

    An earlier run in a fixed directory must not pass for this one. A run that goes on in a directory of its own takes
    the best checkpoint along, since the one it goes on from names it.

    Args:
        run_dir: of this run.
        checkpoint: what it goes on from; None begins anew.
    """
    (run_dir / RESULT).unlink(missing_ok=True)
    metrics, kept = run_dir / "metrics.csv", run_dir / "checkpoints"
    if checkpoint is None:
        metrics.unlink(missing_ok=True)
        for stale in kept.glob("*.ckpt"):
            stale.unlink()
    elif checkpoint.resolve().parent == kept.resolve():
        state = read_checkpoint(checkpoint)
        position = Position(**state["DetectionDataModule"])
        keep_rows(metrics, steps=state["global_step"], with_last_validation=position.samples_seen == 0)
    elif (best := checkpoint.with_name("best.ckpt")).is_file():
        kept.mkdir(exist_ok=True)
        shutil.copyfile(best, kept / best.name)


def random_state() -> dict[str, Any]:
    """Give the state of all global random streams of this process in plain containers and tensors."""
    _, words, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    state: dict[str, Any] = {
        "python": list(random.getstate()[1]),
        "python_gauss": random.getstate()[2],
        "numpy": torch.from_numpy(np.asarray(words, dtype=np.int64)),
        "numpy_rest": [int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put the streams where `random_state` found them."""
    random.setstate((3, tuple(state["python"]), state["python_gauss"]))
    position, has_gauss, gauss = state["numpy_rest"]
    words = state["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class RandomStreams(pl.Callback):
    """Keeps the random streams of every rank in the checkpoint, and puts them back before the run goes on."""

    def __init__(self) -> None:
        self._of_ranks: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Collect the states; every rank comes here, as all of them make the checkpoint that one writes."""
        states = [random_state()]
        if dist.is_available() and dist.is_initialized():
            states = [{} for _ in range(dist.get_world_size())]
            dist.all_gather_object(states, random_state())
        return {"of_ranks": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Note what to put back."""
        self._of_ranks = state_dict["of_ranks"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put this rank's streams back: whatever was drawn while the run was set up again is forgotten."""
        if self._of_ranks and trainer.global_rank < len(self._of_ranks):
            set_random_state(self._of_ranks[trainer.global_rank])
        self._of_ranks = []


class Position:
    """Where in its epochs a run stands, in samples that each rank has drawn.

    Args:
        epoch: the current one.
        samples_seen: of it, by every rank.
        batch_size: pictures a step on each rank.
        ranks: number of processes.
    """

    def __init__(self, *, epoch: int, samples_seen: int, batch_size: int, ranks: int) -> None:
        self.epoch = epoch
        self.samples_seen = samples_seen
        self.batch_size = batch_size
        self.ranks = ranks

    @classmethod
    def of(cls, trainer: pl.Trainer, batch_size: int) -> "Position":
        """Read it off Lightning's counters, in a hook of a batch's, a validation's or an epoch's end."""
        epochs: Any = trainer.fit_loop.epoch_progress.current
        is_over = epochs.processed > epochs.completed  # `on_train_epoch_end`
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        return cls(
            epoch=epochs.processed,
            samples_seen=0 if is_over else batches.processed * batch_size,
            batch_size=batch_size,
            ranks=trainer.world_size,
        )

    def check(self, *, batch_size: int, ranks: int) -> None:
        """Refuse to go on in mid-epoch with other batches than those it was begun with.

        Raises:
            WeightsError: another batch size or number of ranks, and some of the epoch's batches are done.
        """
        if self.samples_seen and (self.batch_size, self.ranks) != (batch_size, ranks):
            raise WeightsError(
                f"the checkpoint was written in the middle of epoch {self.epoch}, with data.batch_size="
                f"{self.batch_size} on {self.ranks} rank(s); it cannot go on with {batch_size} on {ranks}: "
                "the pictures left in the epoch would be others"
            )
