"""What a run has to say about itself to be repeated: configuration, code, versions, seed, machine."""

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import ssd_lightning

PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "torchmetrics", "albumentations", "opencv-python-headless",
    "numpy", "hydra-core", "omegaconf", "wandb",
)  # fmt: skip


def run_record(seed: int, **extra: Any) -> dict[str, Any]:
    """Describe this run in plain values."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "seed": seed,
        "ssd_lightning": ssd_lightning.__version__,
        **git_state(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        },
        **extra,
    }


def write_record(directory: Path, record: Mapping[str, Any]) -> None:
    """Write `run.json`."""
    (directory / "run.json").write_text(json.dumps(record, indent=2) + "\n")


def git_state() -> dict[str, Any]:
    """Give the commit that the package runs from and whether files differ from it; None where it is not a checkout."""
    package = Path(__file__).parents[1]
    commit = _git(package, "rev-parse", "HEAD")
    tracked = commit is not None and _git(package, "ls-files", "--error-unmatch", __file__) is not None
    if not tracked:  # installed into an environment that lies in somebody else's repository
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": commit, "git_dirty": bool(_git(package, "status", "--porcelain"))}


def _git(directory: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
