"""The record of a run that is needed to repeat it: code, versions, seed, machine."""

import logging
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import torch

import ssd_lightning
from ssd_lightning.data.fingerprint import differences
from ssd_lightning.run_files import RECORD, RESULT, read_json, write_json

log = logging.getLogger(__name__)

LARGEST_DIFF = 1 << 20

PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "torchmetrics", "albumentations", "opencv-python-headless",
    "numpy", "hydra-core", "omegaconf", "wandb",
)  # fmt: skip


def run_record(seed: int, **extra: Any) -> dict[str, Any]:
    """Return the record of this run, as plain values."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "seed": seed,
        "ssd_lightning": ssd_lightning.__version__,
        **git_state(),
        "python": platform.python_version(),
        "directory": str(Path.cwd()),
        "versions": {name: _version(name) for name in PACKAGES},
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        },
        **extra,
    }


def earlier_starts(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the time, command and commit of a run's start and of each resume."""
    this = {key: record.get(key) for key in ("started", "command", "git_commit", "git_dirty", "goes_on_from")}
    return [*record.get("earlier", []), this] if record else []


def read_record(directory: Path) -> dict[str, Any]:
    """Read `run.json`. Empty if it is missing or unreadable."""
    return read_json(directory / RECORD) or {}


@cache
def installed_packages() -> dict[str, str]:
    """Return the versions of all installed packages; reading them takes half a second."""
    found = [(part.metadata["Name"], part.version) for part in distributions() if part.metadata["Name"]]
    return dict(reversed(found))  # of several installations of a package, the first is the imported one


def _version(package: str) -> str | None:
    try:
        return version(package)  # in any spelling of the name: Hydra_Core is hydra-core
    except PackageNotFoundError:
        return None


def write_surroundings(directory: Path) -> None:
    """Write `requirements.txt` with all installed packages, and `git.diff`.

    `git.diff` contains the uncommitted changes of the checkout, if there are any. It is truncated after `LARGEST_DIFF`
    bytes; its last line then says so.
    """
    lines = [f"{name}=={number}\n" for name, number in installed_packages().items()]
    (directory / "requirements.txt").write_text("".join(sorted(lines, key=str.lower)))
    package = Path(__file__).parents[1]
    diff = _git(package, "diff", "--no-ext-diff", "--no-color", "HEAD") if git_state()["git_commit"] else None
    path = directory / "git.diff"
    if not diff:
        path.unlink(missing_ok=True)
        return
    data = f"{diff}\n".encode(errors="surrogateescape")
    if len(data) > LARGEST_DIFF:
        data = data[:LARGEST_DIFF] + f"\n# cut off: the whole has {len(data):,} bytes\n".encode()
    path.write_bytes(data)


def log_changed_data(earlier: Mapping[str, Any], fingerprints: Mapping[str, Mapping[str, Any]], *, run: Path) -> None:
    """Warn if the fingerprints of the splits differ from those in the record of an earlier run, if it has any."""
    recorded = earlier.get("data")
    for split, now in fingerprints.items():
        before = recorded.get(split) if isinstance(recorded, dict) else None
        changed = differences(before, now) if isinstance(before, dict) else []
        if changed:
            log.warning("the %s images differ from those of %s: %s", split, run, "; ".join(changed))


def write_result(directory: Path, *, digest: str, scores: Mapping[str, float], checkpoint: str | None) -> None:
    """Write `result.json` atomically. It is the last file of a run: if it exists, the run is finished.

    `digest` is that of the configuration, `scores` are the last values of everything that was logged (null if not
    finite), and `checkpoint` is the path of the best one.
    """
    result = {
        "digest": digest,
        "status": "finished",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "scores": dict(scores),
        "checkpoint": checkpoint,
    }
    write_json(directory / RESULT, result)


def git_state() -> dict[str, Any]:
    """Return the package's commit, whether files differ from it, and untracked files of the package.

    All are None if the package does not run from a checkout.
    """
    package = Path(__file__).parents[1]
    commit = _git(package, "rev-parse", "HEAD")
    tracked = commit is not None and _git(package, "ls-files", "--error-unmatch", __file__) is not None
    if not tracked:  # installed in an environment inside another repository
        return {"git_commit": None, "git_dirty": None, "git_untracked": None}
    untracked = _git(package, "ls-files", "--others", "--exclude-standard", "--", ".") or ""
    return {
        "git_commit": commit,
        "git_dirty": bool(_git(package, "status", "--porcelain")),
        "git_untracked": untracked.splitlines(),
    }


def _git(directory: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, errors="surrogateescape", timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip("\n")  # trailing blanks belong to a diff


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
