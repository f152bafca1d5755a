"""Whole runs of two processes through the command line."""

import csv
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

import psutil
import pytest

from helpers.wandb_records import history_of, records_of
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.data.toy import write_toy_dataset

pytestmark = pytest.mark.slow

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
        environments = {process.pid: process.info["environ"] or {} for process in psutil.process_iter(["environ"])}
        return {pid: variables for pid, variables in environments.items() if variables.get(MARK) == self.mark}

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.1)

    def wait_for_all(self, seconds: float) -> list[int]:
        """Wait until no process of this run is left, and give the exit codes of those that were started here."""
        self.wait_until(lambda: not self.alive(), seconds)
        return [process.wait(timeout=10) for process in self.started]

    def kill(self) -> None:
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.wait(timeout=30)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    one = Run(tmp_path)
    yield one
    one.kill()


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


def test_processes_that_srun_started_make_one_run(run: Run, images: list[str]) -> None:
    port = free_port()
    for rank in range(2):
        run.start([*TRAIN, *SETTINGS, *images, "trainer.max_epochs=1", "test=true"], **as_srun_does(rank, port))
    assert run.wait_for_all(STARTS_WITHIN_S) == [0, 0], run.output(0) + run.output(1)
    (result,) = (run.folder / "outputs").rglob("result.json")  # one directory
    content = json.loads(result.read_text())
    assert content["status"] == "finished"
    assert "test/map_11point" in content["scores"]  # of one image for two ranks


@pytest.fixture(scope="module")
def alone_and_spread(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run on one device and on two, in the folders 1 and 2; the second is torchrun's and has a dashboard.

    Without batch norm, which would have statistics of each process, and at the paper's rate: at ten times it, the order
    of a sum alone moves the loss by 3.5e-5 after 18 steps.
    """
    root = tmp_path_factory.mktemp("devices")
    toy = {"num_train": 45, "num_val": 8, "num_test": 2}  # five steps an epoch, and five images left over
    write_toy_dataset(root=root / "toy", image_size_px=(96, 96), **toy)
    overrides = [
        "data=toy", f"data.root={root / 'toy'}", *(f"data.{key}={count}" for key, count in toy.items()),
        "data.side_px=96", "data.batch_size=8", "data.num_workers=0", "model=qfgaohao_squeezenet_lite",
        "backbone.weights=null", "image_size=[160,160]", "optimizer.lr=0.001", "trainer.accelerator=cpu",
        "trainer.max_epochs=4", "trainer.log_every_n_steps=1", "trainer.check_val_every_n_epoch=2",
        "trainer.enable_progress_bar=false", "+callbacks.seen._target_=helpers.seen_images.SeenImages",
    ]  # fmt: skip
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    commands = {
        1: [*TRAIN, *overrides, "callbacks.dashboard=null", "report=false"],
        2: [*TORCHRUN, *overrides, "logger=[csv,wandb]"],
    }
    for ranks, command in commands.items():
        run, settings = Run(root), [f"trainer.devices={ranks}", f"hydra.run.dir={root / str(ranks)}"]
        run.start([*command, *settings], PYTHONPATH=path, SEEN_IMAGES=str(root / f"seen{ranks}"), WANDB_MODE="offline")
        try:
            assert run.wait_for_all(STARTS_WITHIN_S) == [0], run.output()
        finally:
            run.kill()
    return root


def images_of_steps(folder: Path, ranks: int) -> list[list[str]]:
    of_ranks = [[json.loads(line) for line in (folder / f"{rank}.jsonl").open()] for rank in range(ranks)]
    return [sorted(name for names in step for name in names) for step in zip(*of_ranks, strict=True)]


def losses_of(run: Path) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


def test_a_run_is_the_same_on_one_and_two_devices(alone_and_spread: Path) -> None:
    """Same images in each of 20 steps, same losses, same mAP."""
    (seen, losses, scores), (spread_seen, spread_losses, spread_scores) = (
        (
            images_of_steps(alone_and_spread / f"seen{ranks}", ranks),
            losses_of(alone_and_spread / str(ranks)),
            json.loads((alone_and_spread / str(ranks) / "result.json").read_text())["scores"],
        )
        for ranks in (1, 2)
    )
    assert len(seen) == len(losses) == 20
    assert spread_seen == seen
    assert spread_losses == pytest.approx(losses, rel=1e-5)
    assert spread_scores["val/map_area"] == pytest.approx(scores["val/map_area"], abs=0.005)
    batch = json.loads((alone_and_spread / "2" / "run.json").read_text())["batch"]
    assert batch == {"batch_size": 8, "devices": 2, "accumulate_grad_batches": 1, "device_batch_size": 4}
    told = (alone_and_spread / "2" / "train.log").read_text()
    assert "8 images in each optimiser step, shared by 2 devices: 4 at a time" in told


def test_two_processes_fill_one_dashboard(alone_and_spread: Path) -> None:
    directory = alone_and_spread / "2"
    rows = history_of(records_of(directory))  # of the one run that is there
    validations = [row["val/map_11point"] for row in rows if "val/map_11point" in row]
    result = json.loads((directory / "result.json").read_text())
    assert len(validations) == 2
    assert result["scores"]["val/map_11point"] in [pytest.approx(score, abs=1e-6) for score in validations]
    assert [len(row["val/images"]["captions"]) for row in rows if "val/images" in row] == [8, 8]
    # The evaluation has the images of both ranks, each once.
    record = EvaluationRecord.load(directory / "evaluations" / "val.npz")
    assert len(set(record.image_ids)) == len(record.image_ids) == 8
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


@pytest.mark.parametrize(
    ("command", "victim", "moment"),
    [
        (TRAIN, "launcher", "validation"),
        (TRAIN, "rank", "training"),
        (TORCHRUN, "rank", "validation"),
    ],
    ids=["own-launcher", "own-rank", "torchrun-rank"],
)
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
    if victim == "rank":
        children = psutil.Process(process.pid).children()
        (killed,) = [child.pid for child in children if alive[child.pid].get("LOCAL_RANK") == "1"]
    else:
        killed = process.pid  # rank 0 itself with Lightning's launcher
    begun = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    assert run.wait_for_all(ENDS_WITHIN_S) != [0]
    print(f"all {len(alive)} processes were gone after {time.monotonic() - begun:.1f} s")
