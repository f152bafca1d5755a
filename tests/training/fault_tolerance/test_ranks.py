"""What ends a rank besides its launcher. Whole runs with a killed process are in test_distributed_runs.py."""

import os
import select
import signal
import sys
import time

import pytest
from pytorch_lightning.strategies import DDPStrategy

from ssd_lightning.training.fault_tolerance.ranks import end_with_launcher, with_timeout

LIFETIME_S = 2


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at the death of a parent")
@pytest.mark.parametrize("has_launcher", [True, False])
def test_a_rank_dies_with_its_launcher_but_not_with_a_shell(
    has_launcher: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1") if has_launcher else monkeypatch.delenv("LOCAL_RANK", raising=False)
    reading, writing = os.pipe()  # at its end when the last process that may write is gone
    launcher = os.fork()
    if launcher == 0:
        if os.fork() == 0:
            end_with_launcher()
            os.write(writing, b"ready")
            time.sleep(LIFETIME_S)
            os._exit(0)
        signal.pause()
    os.close(writing)
    assert os.read(reading, 5) == b"ready"
    os.kill(launcher, signal.SIGKILL)
    os.waitpid(launcher, 0)
    died, _, _ = select.select([reading], [], [], LIFETIME_S / 2)
    assert bool(died) == has_launcher
    os.close(reading)


def test_only_collectives_of_ddp_get_a_time_out() -> None:
    assert isinstance(with_timeout("auto", ranks=2), DDPStrategy)
    assert with_timeout("auto", ranks=1) == "auto"
    assert with_timeout("fsdp", ranks=2) == "fsdp"
