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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's switch")
def test_memory_that_was_freed_is_not_asked_for_again() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=environment)
    kept, without, faults = run.stdout.split()
    assert kept == "True"
    assert int(faults) < int(without) / 2


@pytest.mark.parametrize("variables", [{"MALLOC_ARENA_MAX": "4"}, {}], ids=["the user chose", "another C library"])
def test_it_is_not_done_otherwise(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    called: list[object] = []
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: called.append(name) or object())
    others = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    monkeypatch.setattr(os, "environ", {**others, **variables})
    assert not memory.keep_freed_memory(torch.device("cpu"))
    assert len(called) == (0 if variables else 1)
