"""Two real processes compute what one does."""

import multiprocessing
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from omegaconf import OmegaConf
from pytorch_lightning.accelerators import CUDAAccelerator

from helpers.distributed_steps import IMAGES, NORMALIZERS, gradients, run_rank, scores
from ssd_lightning.assembly import set_up_machine
from ssd_lightning.config import compose_config
from ssd_lightning.devices import choose_device
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.training.devices import (
    Launch,
    check_devices,
    check_launch,
    check_sync_batchnorm,
    device_batch_size,
    find_launch,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What two gloo processes give."""
    folder = tmp_path_factory.mktemp("ranks")
    # Not by a fork of this process: threads of autograd, which another test may have begun, do not outlive it. The
    # server of forks has none and imports once for both.
    multiprocessing.set_forkserver_preload(["helpers.distributed_steps"])
    rank = partial(run_rank, world_size=2, folder=folder, backend="gloo")
    mp.start_processes(rank, nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def relative_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() - other.double()).norm() / one.double().norm())


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_two_processes_have_the_gradients_of_one(ranks: list[dict], normalizer: str, accumulate: int) -> None:
    single = gradients(normalizer, accumulate, 0, 1, CPU)
    assert single.norm() > 0
    for rank in ranks:
        assert relative_difference(single, rank["gradients"][normalizer, accumulate]) < 1e-6


@pytest.mark.parametrize(("count", "of_rank"), [(IMAGES, (17, 17)), (1, (1, 0))], ids=["uneven", "an empty rank"])
def test_uneven_ranks_see_and_score_what_one_process_does(
    ranks: list[dict], count: int, of_rank: tuple[int, int]
) -> None:
    single, seen, _ = scores(count, 0, 1)
    assert 0 < single["map_area"] < 1 or count == 1
    for rank, own in zip(ranks, of_rank, strict=True):
        torch.testing.assert_close(rank["scores"][count], (single, seen, own), rtol=0, atol=0, equal_nan=True)


def test_ranks_that_differ_stop_with_the_same_message(ranks: list[dict]) -> None:
    first, second = (rank["disagreement"] for rank in ranks)
    assert first == second
    assert "rank 0 and rank 1 (of 2) have optimizer.lr: 0.001 and 0.002; training_images.boxes: " in first


def test_all_ranks_hear_the_most_important_signal_of_any(ranks: list[dict]) -> None:
    wanted = [(0, True), (signal.SIGTERM, False), (signal.SIGINT, False), (0, False)]
    assert [rank["heard"] for rank in ranks] == [wanted, wanted]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_have_the_gradients_of_one(tmp_path: Path) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    mp.spawn(partial(run_rank, world_size=2, folder=tmp_path, backend="nccl"), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for (normalizer, accumulate), found in results[1]["gradients"].items():
        torch.testing.assert_close(found, results[0]["gradients"][normalizer, accumulate], rtol=0, atol=0)
        single = gradients(normalizer, accumulate, 0, 1, torch.device("cuda", 0))
        assert relative_difference(single, found) < 1e-5
    assert "optimizer.lr" in results[0]["disagreement"]


TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "RANK": "0"}
SLURM = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        ({}, None),
        (TORCHRUN, Launch("torchrun", here=2, nodes=2)),
        (SLURM, Launch("srun", here=2, nodes=2)),
        ({"SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, Launch("srun", here=None, nodes=1)),
        ({**SLURM, "SLURM_JOB_NAME": "interactive"}, None),  # as in Lightning
        ({**SLURM, **TORCHRUN}, Launch("torchrun", here=2, nodes=2)),
    ],
)
def test_launchers_are_recognised(environment: dict[str, str], launch: Launch | None) -> None:
    assert find_launch(environment) == launch


def test_processes_and_settings_have_to_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigurationError, match=r"trainer\.num_nodes=2: start this command on each machine"):
        check_launch(None, num_devices=8, num_nodes=2)
    monkeypatch.setenv("MASTER_ADDR", "node0")  # by hand
    check_launch(None, num_devices=8, num_nodes=2)
    launch = Launch("srun", here=2, nodes=2)
    check_launch(launch, num_devices=2, num_nodes=2)
    with pytest.raises(ConfigurationError, match=r"2 devices of a machine, but trainer\.devices=1: set trainer\.dev"):
        check_launch(launch, num_devices=1, num_nodes=2)
    with pytest.raises(ConfigurationError, match=r"on 2 machines, but trainer\.num_nodes=1: set trainer\.num_nodes=2"):
        check_launch(launch, num_devices=2, num_nodes=1)


def test_a_launcher_with_other_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=r"set trainer\.devices=2"):
        set_up_machine(compose_config("train", ["trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=2"]))


@pytest.mark.parametrize("devices", [1, "1", "auto"])
def test_one_process_on_the_processor(devices: object) -> None:
    assert check_devices("cpu", devices) == 1


def test_processes_have_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd_lightning.training.devices.choose_device", lambda name: CPU)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert check_devices("cpu", 2) == 2
    with pytest.raises(ConfigurationError, match="no GPU"):
        check_devices("auto", 2)
    with pytest.raises(ConfigurationError, match="2 processor cores"):
        check_devices("cpu", 3)
    for wrong, said in (
        (0, "is 0; it must"),
        (-1, "is -1; it must"),
        (OmegaConf.create([0]), r"=\[0\]: a list has GPUs"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            check_devices("cpu", wrong)
    for name, value in TORCHRUN.items():  # what a launcher has started is not refused
        monkeypatch.setenv(name, value)
    assert check_devices("cpu", 3) == check_devices("auto", 3) == 3


@pytest.mark.parametrize(
    ("devices", "answer"),
    [
        (3, "has 2 cuda devices"),
        ([0, 2], "no cuda device 2"),
        ("0,5", "no cuda device 5"),
        ("x", "is not a number"),
        ([], "has no device"),
        (0, "trainer.devices is 0; it must be a whole number of at least 1"),
        ("-2", "is -2; it"),
    ],
)
def test_more_devices_than_there_are(monkeypatch: pytest.MonkeyPatch, devices: object, answer: str) -> None:
    monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: True))
    monkeypatch.setattr(CUDAAccelerator, "auto_device_count", staticmethod(lambda: 2))
    with pytest.raises(ConfigurationError, match=answer):
        check_devices("gpu", devices)
    assert check_devices("gpu", 2) == check_devices("gpu", "auto") == check_devices("gpu", [0, 1]) == 2
    assert check_devices("gpu", OmegaConf.create([1])) == 1


def test_a_device_that_is_not_there() -> None:
    for name in ("cuda:99", "warp"):
        with pytest.raises(ConfigurationError, match=f"device={name}"):
            choose_device(name)


@pytest.mark.parametrize(
    ("images", "ranks", "accumulate", "share"),  # a set smaller than a batch is a step of equal shares
    [(None, 1, 1, 32), (None, 4, 4, 2), (99, 2, 2, 8), (31, 2, 2, 7), (31, 1, 1, 31), (4, 2, 2, 1)],
)
def test_each_device_gets_its_share_of_a_step(images: int | None, ranks: int, accumulate: int, share: int) -> None:
    assert device_batch_size(32, ranks=ranks, accumulate=accumulate, images=images) == share


@pytest.mark.parametrize(
    ("batch_size", "ranks", "accumulate", "sentence"),
    [
        (32, 2, 2, r"3 training images for 2 devices x 2 accumulated batches"),
        (32, 3, 1, r"data\.batch_size=32 .*3 devices cannot share it evenly; the nearest possible values: 30 or 33"),
        (32, 1, 5, r"1 device x 5 accumulated batches cannot share it evenly; .* 30 or 35"),
        (2, 4, 1, r"4 devices cannot share it evenly; the nearest possible values: 4$"),
        (32, 4, 0, r"trainer\.accumulate_grad_batches is 0"),
        (0, 4, 1, r"data\.batch_size is 0"),
    ],
)
def test_what_cannot_be_shared_evenly_is_refused(batch_size: int, ranks: int, accumulate: int, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        device_batch_size(batch_size, ranks=ranks, accumulate=accumulate, images=3)


def test_batch_norm_over_ranks_needs_a_gpu() -> None:
    check_sync_batchnorm(True, "cuda")
    check_sync_batchnorm(False, "cpu")
    with pytest.raises(ConfigurationError, match=r"trainer\.sync_batchnorm=true.*GPU"):
        check_sync_batchnorm(True, "cpu")
