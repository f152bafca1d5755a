import os
import platform
import subprocess
import sys

import pytest
import torch

from ssd_lightning import memory

FAULTS = """
import resource, torch
from ssd_lightning.memory import keep_freed_memory

def faults_of_five_blocks():
    torch.ones(1 << 24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(1 << 24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = faults_of_five_blocks()
kept = keep_freed_memory(torch.device("cpu"))
for _ in range(3):  # until the heap has grown to what the blocks need
    faults = faults_of_five_blocks()
print(kept, without, faults)
"""


def in_a_process(**environment: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", FAULTS],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | environment,
    )
    return run.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's switch")
def test_memory_that_was_freed_is_not_asked_for_again() -> None:
    kept, without, faults = in_a_process()
    assert kept == "True"
    assert int(faults) < int(without) / 2


def test_what_the_user_said_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: called.append(name))
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not memory.keep_freed_memory(torch.device("cpu"))
    assert not called


def test_other_systems_have_no_such_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherLibrary:
        pass

    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: OtherLibrary())
    assert not memory.keep_freed_memory(torch.device("cpu"))
