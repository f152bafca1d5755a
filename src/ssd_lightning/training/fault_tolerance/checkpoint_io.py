"""Writes checkpoint files so that a crash during writing does no harm."""

import errno
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from torch import Tensor

from ssd_lightning.errors import UserError, WeightsError, with_causes


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a partial file next to the target, syncs it to disk, reads it back, then renames it.

    If the process is killed, either the old or the new file remains. Lightning's own plugin writes to the temporary
    directory; moving from there to another file system is a copy, which can be interrupted. If the target is
    `last.ckpt`, the old file is kept as `previous.ckpt`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save a checkpoint of plain containers.

        Raises:
            UserError: a value is not finite, or there is no space. Nothing is written, older files are unchanged.
            WeightsError: the file cannot be read back correctly. It is removed.
        """
        target = Path(path)
        if (name := find_non_finite(checkpoint)) is not None:
            raise UserError(
                f"{target} is not written: {name} is not finite; lower optimizer.lr, raise scheduler.warmup_steps or "
                "set trainer.gradient_clip_val, and resume from an older checkpoint"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            check_intact(partial)
            if target.name == LAST and target.exists():
                _keep_as(target, target.with_name(PREVIOUS))
            partial.replace(target)
            _sync_directory(target.parent)
        except (OSError, RuntimeError) as error:  # torch's writer raises OS errors as RuntimeError
            if not _is_full(error, target.parent):
                raise
            free = shutil.disk_usage(target.parent).free / 2**20
            raise UserError(
                f"there is no space for {target}: the disk has {free:.0f} MiB left; older checkpoints are unchanged, "
                f"and resume={target.parent.parent} continues once there is space"
            ) from error
        finally:
            partial.unlink(missing_ok=True)


LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"


def check_intact(path: Path) -> None:
    """Verify the checksums of all parts of a checkpoint file.

    Raises:
        WeightsError: the file is truncated or a part of it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    if damaged is not None:
        raise WeightsError(f"{path} is damaged in its part {damaged}")


def find_non_finite(checkpoint: Mapping[str, Any]) -> str | None:
    """Name the first non-finite tensor in weights, averages or optimiser state. None if all are finite."""
    parts = {
        key: checkpoint.get(key, {})
        for key in ("state_dict", "current_model_state", "averaging_state", "optimizer_states")
    }
    tensors = [(name, tensor) for name, tensor in _tensors(parts) if tensor.is_floating_point() and tensor.numel()]
    finite = [tensor.isfinite().all() for _, tensor in tensors]  # all checks start before the first wait
    return next((name for (name, _), is_finite in zip(tensors, finite, strict=True) if not is_finite), None)


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, (Mapping, list, tuple)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _tensors(item, f"{name}.{key}" if name else str(key))


def _keep_as(existing: Path, kept: Path) -> None:
    """Give a file a second name. At every moment both names refer to a complete file."""
    spare = kept.with_name(f".{kept.name}.partial")
    spare.unlink(missing_ok=True)
    try:
        os.link(existing, spare)
    except OSError:  # a file system without hard links
        shutil.copyfile(existing, spare)
    spare.replace(kept)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_full(error: Exception, directory: Path) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if any(isinstance(cause, OSError) and cause.errno in full for cause in with_causes(error)):
        return True
    return isinstance(error, RuntimeError) and shutil.disk_usage(directory).free < 2**20
