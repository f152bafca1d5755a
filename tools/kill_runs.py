"""Kill training runs at random moments, let them go on, and compare how they end with a run that was left alone.

    python tools/kill_runs.py --count 50 --seed 0

Each trial is the same small run with a moving average, saved after every step, killed by SIGKILL once at a random
moment and gone on with by `resume=auto`. Half of the trials have two data workers. Runs are forked from this process,
which has imported everything, so that the time between start and end is nearly all training and saving; the temporary
directory lies on another file system where there is one. With `--ranks 2` runs are started again, two processes each.
"""

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}

import torch

from ssd_lightning import train
from ssd_lightning.errors import WeightsError
from ssd_lightning.training import SSDModule  # noqa: F401
from ssd_lightning.training.fault_tolerance import resumption  # noqa: F401
from ssd_lightning.training.fault_tolerance.checkpoint_io import check_intact

OVERRIDES = [
    "experiment=toy_tiny", "data.num_train=26", "data.num_val=6", "data.num_test=3", "data.side_px=96",
    "data.batch_size=8", "image_size=[64,64]", "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1",
    "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "callbacks=[default,ema]",
    "callbacks.last.every_n_steps=1", "trainer.log_every_n_steps=1", "report=false", "callbacks.dashboard=null",
]  # fmt: skip
NOT_COMPARED = ("speed/", "images/s", "data_wait")
"""Columns of metrics.csv that hold measured times."""


def main() -> None:
    """Run the trials and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="trials")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--ranks", type=int, default=1, help="processes of a run")
    parser.add_argument("--folder", type=Path, help="of the runs; a temporary one that is removed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill_runs_") as temporary:
        if Path("/dev/shm").is_dir():  # noqa: S108
            tempfile.tempdir = os.environ["TMPDIR"] = "/dev/shm"  # noqa: S108
        counts = run_trials(asked.folder or Path(temporary), asked.count, asked.seed, asked.ranks)
    print(f"\n{asked.count} runs of {asked.ranks} rank(s), killed once each (seed {asked.seed})")
    for what, count in counts.items():
        print(f"  {what:42} {count}")
    sys.exit(0 if counts["bit-identical ends"] == asked.count and not counts["lost checkpoints"] else 1)


def run_trials(folder: Path, count: int, seed: int, ranks: int) -> Counter[str]:
    """Kill and compare; gives how often what was seen."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    rng = random.Random(seed)  # noqa: S311
    run("whole", ranks, 0)
    wanted = state_of(Path("whole"))
    counts: Counter[str] = Counter(dict.fromkeys(SEEN, 0))
    for trial in range(count):
        name, workers = f"trial_{trial}", 2 * (trial % 2)
        # So many checkpoints are waited for, and then some of the time between two, however fast the machine is.
        moment = rng.randrange(SAVES), rng.random()
        killed = run(name, ranks, workers, kill_at=moment)
        kept = Path(name) / "checkpoints"
        counts["killed before the end"] += killed < 0
        counts["killed while a checkpoint was written"] += bool(list(kept.glob(".*.partial")))
        counts["killed before the first checkpoint"] += not (kept / "last.ckpt").exists()
        counts["lost checkpoints"] += not all(is_intact(path) for path in kept.glob("*.ckpt"))
        run(name, ranks, workers, "resume=auto")
        difference = first_difference(state_of(Path(name)), wanted)
        counts["bit-identical ends"] += difference is None
        print(
            f"{name}: killed {moment[1]:.2f} of a save's time after save {moment[0]}, workers {workers}:",
            difference or "identical",
            flush=True,
        )
    return counts


SEEN = (
    "killed before the end", "killed while a checkpoint was written", "killed before the first checkpoint",
    "lost checkpoints", "bit-identical ends",
)  # fmt: skip


SAVES = 12
"""Checkpoints that a whole run of `OVERRIDES` writes: one a step but the last of each epoch, one at the start of each
validation, one at the end of each epoch."""


def run(name: str, ranks: int, workers: int, *overrides: str, kill_at: tuple[int, float] | None = None) -> float:
    """Run once; gives the seconds it took, negative where it was killed.

    Args:
        name: of its directory.
        ranks: number of its processes.
        workers: data workers of each.
        overrides: further settings.
        kill_at: after so many checkpoints, and then after this share of the time that the last one took to come.

    Raises:
        RuntimeError: it ended by itself with another code than 0.
    """
    overrides = (
        *OVERRIDES,
        f"data.num_workers={workers}",
        f"trainer.devices={ranks}",
        f"hydra.run.dir={name}",
        *overrides,
    )
    began = time.monotonic()
    process = fork(name, overrides) if ranks == 1 else start(name, overrides)
    last, saves, seen = Path(name) / "checkpoints" / "last.ckpt", 0, (0, began, 0.1)
    while (code := exit_code(process)) is None:
        now = time.monotonic()
        if (inode := last.stat().st_ino if last.exists() else 0) != seen[0]:
            saves, seen = saves + 1, (inode, now, min(now - seen[1], 1.0))
        is_ready = saves > 0 or (Path(name) / ".lock").exists()
        if kill_at is not None and is_ready and saves >= kill_at[0] and now - seen[1] >= kill_at[1] * seen[2]:
            os.kill(process.pid if isinstance(process, subprocess.Popen) else process, signal.SIGKILL)
            kill_at = None
        time.sleep(0.002)
    taken = time.monotonic() - began
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{name} ended with {code}:\n{Path(f'{name}.log').read_text()[-3000:]}")
    return taken if code == 0 else -taken


def fork(name: str, overrides: tuple[str, ...]) -> int:
    """Start a run in a copy of this process."""
    process = os.fork()
    if process:
        return process
    log = os.open(f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["train", *overrides]
    code = 0
    try:
        train.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


def start(name: str, overrides: tuple[str, ...]) -> subprocess.Popen:
    """Start a run by the command line."""
    with Path(f"{name}.log").open("a") as log:
        command = [sys.executable, "-m", "ssd_lightning.train", *overrides]
        return subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603


def exit_code(process: int | subprocess.Popen) -> int | None:
    """Give the code of a process, negative for a signal; None while it lives."""
    if isinstance(process, subprocess.Popen):
        return process.poll()
    done, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def is_intact(path: Path) -> bool:
    """Say whether a checkpoint reads back as it was written."""
    try:
        check_intact(path)
    except WeightsError:
        return False
    return True


def state_of(run: Path) -> dict[str, Any]:
    """Give all that has to be the same at the end of two runs: both checkpoints, and what was logged."""
    state: dict[str, Any] = {}
    for name in ("last", "best"):
        checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        state[name] = {key: checkpoint[key] for key in KEYS} | {"random": checkpoint["callbacks"]["RNGState"]}
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    state["metrics"] = [
        {name: value for name, value in row.items() if value and not name.startswith(NOT_COMPARED)} for row in rows
    ]
    return state


KEYS = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "global_step")


def first_difference(one: Any, two: Any, where: str = "") -> str | None:
    """Name the first place where two nested containers are not the same bit for bit."""
    if isinstance(one, torch.Tensor):
        return None if torch.equal(one, two) else where
    if isinstance(one, dict):
        if one.keys() != two.keys():
            return f"{where}: {one.keys() ^ two.keys()}"
        found = (first_difference(one[key], two[key], f"{where}.{key}") for key in one)
    elif isinstance(one, (list, tuple)):
        if len(one) != len(two):
            return f"{where}: {len(one)} and {len(two)} entries"
        found = (first_difference(a, b, f"{where}.{i}") for i, (a, b) in enumerate(zip(one, two, strict=True)))
    else:
        return None if one == two else f"{where}: {one} and {two}"
    return next((place for place in found if place), None)


if __name__ == "__main__":
    main()
