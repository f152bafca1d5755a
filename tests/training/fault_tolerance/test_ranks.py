"""What ends a process that has lost its launcher or a fellow."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ssd_lightning.training.fault_tolerance import ranks
from ssd_lightning.training.fault_tolerance.ranks import Lifeline, end_with_launcher, receive, send

SCRIPT = Path(__file__).parents[2] / "helpers" / "distributed_death.py"


OPEN: list[Lifeline] = []


@pytest.fixture(autouse=True)
def no_end(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    reasons: list[str] = []
    monkeypatch.setattr(ranks, "end_now", reasons.append)
    monkeypatch.setattr(ranks, "GRACE_S", 0.0)
    monkeypatch.setattr(ranks, "POLL_S", 0.01)
    monkeypatch.setattr(ranks.distributed, "get_rank", lambda: 0)
    return reasons


def watch(says: str | None, *, leaves_first: bool = False) -> socket.socket:
    """Let rank 1 send a message, or break off, and watch it as rank 0 does; give the line to rank 2."""
    mine, theirs = socket.socketpair()
    second, third = socket.socketpair()
    lifeline = Lifeline()
    lifeline._lines = {1: mine, 2: second}
    if leaves_first:
        lifeline._is_closed.set()
    if says is not None:
        send(theirs, says)
    theirs.close()
    lifeline._watch(1, mine, lifeline._is_closed)
    OPEN.append(lifeline)
    third.settimeout(0.2)
    return third


def test_a_rank_that_breaks_off_ends_this_one_and_the_others_are_reported(no_end: list[str]) -> None:
    assert receive(watch(None)) == "lost 1"
    assert no_end == ["rank 1 has ended before the run was over; rank 0 ends too"]


def test_who_was_lost_is_passed_on(no_end: list[str]) -> None:
    watch("lost 3")
    assert no_end == ["rank 3 has ended before the run was over; rank 0 ends too"]


@pytest.mark.parametrize(("says", "leaves_first"), [("bye", False), (None, True)])
def test_leaving_in_order_ends_nobody(no_end: list[str], says: str | None, leaves_first: bool) -> None:
    with pytest.raises(OSError, match="timed out"):
        watch(says, leaves_first=leaves_first).recv(1)
    assert not no_end


def test_strangers_are_not_taken_for_ranks() -> None:
    server = ranks._serve(is_one_machine=True)
    address = server.getsockname()

    def knock() -> None:
        for word in ("wrong 1", "", "x" * 5000, "secret 2", "secret 1"):
            with socket.create_connection(address) as line:
                send(line, word)
                time.sleep(0.05)

    thread = threading.Thread(target=knock)
    thread.start()
    with server:
        lines = ranks._accept(server, 3, "secret")
    thread.join()
    assert sorted(lines) == [1, 2]
    for line in lines.values():
        line.close()


def test_only_what_a_launcher_started_is_bound_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[int] = []
    monkeypatch.setattr(ranks, "end_with_parent", bound.append)
    for name in ("TORCHELASTIC_RUN_ID", "LOCAL_RANK", ranks.LAUNCHER):
        monkeypatch.delenv(name, raising=False)
    end_with_launcher()  # from a shell: it may be closed, and its children are this one's
    assert not bound
    assert os.environ[ranks.LAUNCHER] == str(os.getpid())
    monkeypatch.setenv("LOCAL_RANK", "1")
    end_with_launcher()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    end_with_launcher()
    assert bound == [os.getpid(), os.getppid()]


def test_another_parent_ends_the_process(no_end: list[str]) -> None:
    ranks.IS_ENDING.clear()
    ranks.end_with_parent(os.getppid())
    time.sleep(0.1)
    assert not no_end
    ranks.end_with_parent(2**22 + 1)
    deadline = time.monotonic() + 10
    while not no_end and time.monotonic() < deadline:
        time.sleep(0.01)
    assert no_end == [f"the process {2**22 + 1} that started this one is gone; it ends too"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_no_process_outlives_a_rank_that_hangs_or_is_killed(tmp_path: Path) -> None:
    """Rank 1 is killed, rank 0 hangs outside of any exchange; the data workers of both are stuck."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([sys.executable, SCRIPT, str(rank), str(tmp_path)], env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    try:
        assert started[1].wait(timeout=180) == -9
        killed = time.monotonic()
        _, told = started[0].communicate(timeout=30)
        assert started[0].returncode == 1
        assert "rank 1 has ended before the run was over; rank 0 ends too" in told.decode()
        workers = [int(word) for path in tmp_path.glob("*.pids") for word in path.read_text().split()]
        assert len(workers) == 4
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < killed + 30
            time.sleep(0.1)
    finally:
        for process in started:
            process.kill()
