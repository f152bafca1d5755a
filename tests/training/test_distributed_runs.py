"""Whole runs of two processes through the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.wandb_records import history_of, records_of
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.data.toy import write_toy_dataset

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc"),
]

TRAIN = [sys.executable, "-m", "ssd_lightning.train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "ssd_lightning.train"]
SETTINGS = [
    "data=toy", "data.side_px=96", "data.batch_size=8", "data.num_workers=1", "image_size=[64,64]",
    "model=tiny_ssd", "extras.channels=[16,16,16]", "optimizer=adamw", "scheduler=cosine",
    "trainer.accelerator=cpu", "trainer.devices=2", "trainer.enable_progress_bar=false",
]  # fmt: skip
MARK = "SSD_LIGHTNING_TEST_MARK"
STARTS_WITHIN_S = 240
ENDS_WITHIN_S = 60


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Few to train on and more to validate, so that a run can be met in either."""
    root = tmp_path_factory.mktemp("toy")
    counts = {"num_train": 32, "num_val": 64, "num_test": 1}
    write_toy_dataset(root=root, image_size_px=(96, 96), **counts)
    return [f"data.root={root}", *(f"data.{key}={count}" for key, count in counts.items())]


class Run:
    """Processes that were started together, and all that come of them: children inherit the mark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.started: list[subprocess.Popen] = []

    def start(self, command: list[str], **environment: str) -> subprocess.Popen:
        variables = {**os.environ, "OMP_NUM_THREADS": "1", MARK: self.mark, **environment}
        with (self.folder / f"{len(self.started)}.out").open("w") as out:
            process = subprocess.Popen(command, env=variables, stdout=out, stderr=subprocess.STDOUT, cwd=self.folder)
        self.started.append(process)
        return process

    def output(self, number: int = 0) -> str:
        return (self.folder / f"{number}.out").read_text()

    def alive(self) -> dict[int, dict[str, str]]:
        """Environment of every process of this run by its id."""
        for process in self.started:
            process.poll()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    overrides = (entry / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                variables = dict(word.decode(errors="replace").partition("=")[::2] for word in overrides)
                if variables.get(MARK) == self.mark:
                    found[int(entry.name)] = variables
        return found

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.1)

    def wait_for_all(self, seconds: float) -> list[int]:
        """Wait until no process of this run is left, and give the exit codes of those that were started here."""
        self.wait_until(lambda: not self.alive(), seconds)
        return [process.wait(timeout=10) for process in self.started]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    one = Run(tmp_path)
    yield one
    for pid in one.alive():
        os.kill(pid, signal.SIGKILL)
    for process in one.started:
        process.wait(timeout=30)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def as_torchrun_does(rank: int, port: str) -> dict[str, str]:
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip


def as_srun_does(rank: int, port: str) -> dict[str, str]:
    return {
        "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0",
        "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_JOB_ID": "4242", "SLURM_STEP_ID": "0",
        "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip


@pytest.mark.parametrize("launcher", [as_torchrun_does, as_srun_does], ids=["torchrun", "srun"])
def test_processes_that_others_started_make_one_run(
    run: Run, images: list[str], launcher: Callable[[int, str], dict[str, str]]
) -> None:
    port = free_port()
    for rank in range(2):
        run.start([*TRAIN, *SETTINGS, *images, "trainer.max_epochs=1", "test=true"], **launcher(rank, port))
    assert run.wait_for_all(STARTS_WITHIN_S) == [0, 0], run.output(0) + run.output(1)
    (result,) = (run.folder / "outputs").rglob("result.json")  # one directory
    content = json.loads(result.read_text())
    assert content["status"] == "finished"
    assert "test/map_11point" in content["scores"]  # of one image for two ranks


def test_two_processes_fill_one_dashboard(run: Run, images: list[str]) -> None:
    overrides = ["logger=[csv,wandb]", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "seed=3"]
    run.start([*TRAIN, *SETTINGS, *images, *overrides, f"hydra.run.dir={run.folder}/run"], WANDB_MODE="offline")
    assert run.wait_for_all(STARTS_WITHIN_S) == [0], run.output()
    directory = run.folder / "run"
    rows = history_of(records_of(directory))  # of the one run that is there
    validations = [row["val/map_11point"] for row in rows if "val/map_11point" in row]
    result = json.loads((directory / "result.json").read_text())
    assert len(validations) == 2
    assert result["scores"]["val/map_11point"] in [pytest.approx(score, abs=1e-6) for score in validations]
    assert [len(row["val/images"]["captions"]) for row in rows if "val/images" in row] == [16, 16]
    # The evaluation has the images of both ranks, each once.
    record = EvaluationRecord.load(directory / "evaluations" / "val.npz")
    assert len(set(record.image_ids)) == len(record.image_ids) == 64
    assert (directory / "report.html").is_file()
    assert (directory / "dashboard").is_dir()


def test_ranks_with_different_settings_stop(run: Run, images: list[str]) -> None:
    port = free_port()
    for rank, rate in enumerate(("0.001", "0.002")):
        overrides = [*SETTINGS, *images, f"optimizer.lr={rate}", f"hydra.run.dir={run.folder}/run"]
        run.start([*TRAIN, *overrides], **as_torchrun_does(rank, port))
    assert run.wait_for_all(STARTS_WITHIN_S) == [2, 2]
    for rank in range(2):
        assert "rank 0 and rank 1 (of 2) have optimizer.lr: 0.001 and 0.002" in run.output(rank)


def test_a_launcher_with_other_numbers_is_refused(run: Run, images: list[str]) -> None:
    run.start([*TRAIN, *SETTINGS, *images, "trainer.devices=1"], **as_torchrun_does(0, free_port()))
    assert run.wait_for_all(STARTS_WITHIN_S) == [2]
    assert "set trainer.devices=2" in run.output()


VICTIMS = {
    "launcher": lambda run, pid, env: pid == run.started[0].pid,  # rank 0 itself with Lightning's launcher
    "rank": lambda run, pid, env: env.get("LOCAL_RANK") == "1" and parent(pid) == run.started[0].pid,
}


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("command", [TRAIN, TORCHRUN], ids=["own", "torchrun"])
@pytest.mark.parametrize(("victim", "moment"), [("launcher", "training"), ("rank", "training"), ("rank", "validation")])
def test_a_killed_process_takes_all_with_it(
    run: Run, images: list[str], command: list[str], victim: str, moment: str
) -> None:
    epochs = 1000 if moment == "training" else 1  # between validations
    overrides = [*SETTINGS, *images, f"trainer.check_val_every_n_epoch={epochs}", "trainer.log_every_n_steps=1"]
    # A validation takes some seconds, one image at a time, and begins after four steps.
    overrides += ["data.eval_batch_size=1", "trainer.max_epochs=1000", f"hydra.run.dir={run.folder}/run"]
    process = run.start([*command, *overrides])
    metrics = run.folder / "run" / "metrics.csv"
    run.wait_until(lambda: metrics.exists() and metrics.stat().st_size > 0, STARTS_WITHIN_S)
    assert process.poll() is None, run.output()
    alive = run.alive()
    assert len(alive) >= 4, "two ranks with a data worker each"
    (found,) = [pid for pid, env in alive.items() if VICTIMS[victim](run, pid, env)]
    killed = time.monotonic()
    os.kill(found, signal.SIGKILL)
    assert run.wait_for_all(ENDS_WITHIN_S) != [0]
    print(f"all {len(alive)} processes were gone after {time.monotonic() - killed:.1f} s")
