import os
import platform
import subprocess
import sys

import pytest

from ssd_lightning.training import host_memory

FAULTS = """
import resource, torch
from ssd_lightning.training.host_memory import keep_freed_memory
{call}
torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(1 << 24)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults_of_five_blocks(call: str, **environment: str) -> int:
    run = subprocess.run(
        [sys.executable, "-c", FAULTS.format(call=call)],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | environment,
    )
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's switch")
def test_memory_that_was_freed_is_not_asked_for_again() -> None:
    assert faults_of_five_blocks("assert keep_freed_memory()") < faults_of_five_blocks("pass") / 2


def test_what_the_user_said_stands() -> None:
    faults_of_five_blocks("assert not keep_freed_memory()", MALLOC_ARENA_MAX="4")


def test_other_systems_have_no_such_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherLibrary:
        pass

    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda name: OtherLibrary())
    assert not host_memory.keep_freed_memory()
