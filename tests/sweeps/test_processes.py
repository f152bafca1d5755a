"""Processes are real here: what is tested is how they end."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ssd_lightning.sweeps import processes
from ssd_lightning.sweeps.processes import describe, run_process


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


OBEDIENT = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\ntime.sleep(60)"


@pytest.mark.parametrize(
    ("code", "end", "reason"),
    [
        ("pass", 0, ""),
        ("import sys\nprint('error: no such data\\nbye', file=sys.stderr)\nsys.exit(2)", 2, "no such data"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("import os\nos.kill(os.getpid(), 9)", 137, "killed by SIGKILL, usually because memory ran out"),
    ],
)
def test_how_a_process_ended(code: str, end: int, reason: str) -> None:
    ending = run_process(python(code))
    assert (ending.code, ending.reason, ending.signal, ending.given_up) == (end, reason, None, False)


@pytest.mark.parametrize(
    ("code", "last_lines", "reason"),
    [
        (1, [], "exit code 1"),
        (1, ["a", '  File "b.py", line 1', "    c()", "ValueError: d", "    e", "", "Set this"], "ValueError: d"),
        (1, ["a", "b", " "], "b"),
        (2, ["error: one", "error: two", "three"], "two"),
        (143, ["stopped"], "ended by SIGTERM"),
    ],
)
def test_reasons(code: int, last_lines: list[str], reason: str) -> None:
    assert describe(code, last_lines) == reason


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGUSR1])
def test_signals_are_passed_on(signum: int) -> None:
    before = signal.getsignal(signum)
    code = f"import signal, sys, time\nsignal.signal({int(signum)}, lambda *_: sys.exit(7))\ntime.sleep(60)"
    threading.Timer(1.5, os.kill, (os.getpid(), signum)).start()
    ending = run_process(python(code))
    assert (ending.code, ending.signal) == (7, signum)
    assert signal.getsignal(signum) is before


def test_a_process_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOOK_EVERY_S", 0.1)
    asked = []
    ending = run_process(python(OBEDIENT), give_up=lambda: bool(asked.append(0)) or len(asked) > 5)
    assert (ending.code, ending.given_up, ending.signal) == (143, True, None)
    assert len(asked) == 6


def test_what_does_not_obey_is_killed_with_all_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.5)
    stubborn = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    start = f"process = subprocess.Popen([sys.executable, '-c', {stubborn + 'time.sleep(60)'!r}])"
    write = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(process.pid))\ntime.sleep(60)"
    ending = run_process(
        python(f"{stubborn}import subprocess, sys\n{start}\n{write}"), give_up=(tmp_path / "pid").exists
    )
    assert (ending.code, ending.given_up) == (137, True)
    wait_for(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def test_output_goes_to_a_file_and_variables_reach_the_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import os, sys\nprint(os.environ['WANDB_NAME'], flush=True)\nprint('err', file=sys.stderr)"
    for _ in range(2):  # a second beginning adds to it
        run_process(python(code), console=tmp_path / "console.txt", environment={"WANDB_NAME": "out"})
    assert sorted((tmp_path / "console.txt").read_text().split()) == ["err", "err", "out", "out"]
    assert capfd.readouterr() == ("", "")
    run_process(python(code), environment={"WANDB_NAME": "out"})
    assert capfd.readouterr() == ("out\n", "err\n")


def test_a_job_ends_when_its_sweep_is_killed(tmp_path: Path) -> None:
    """SIGKILL leaves the sweep no time to tell its job."""
    job = (
        "import os, signal, sys, time\n"
        "from ssd_lightning.sweeps.processes import end_with_sweep\n"
        "def leave(*_):\n    open('left', 'w').close()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "end_with_sweep()\n"
        "open('pid.part', 'w').write(str(os.getpid()))\n"
        "os.replace('pid.part', 'pid')\n"
        "time.sleep(60)\n"
    )
    code = f"from ssd_lightning.sweeps.processes import run_process\nrun_process([{sys.executable!r}, '-c', {job!r}])"
    sweep = subprocess.Popen(python(code), cwd=tmp_path)
    wait_for((tmp_path / "pid").exists)
    sweep.kill()
    sweep.wait()
    wait_for((tmp_path / "left").exists)
    wait_for(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def wait_for(condition, seconds: float = 30) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # dead, and nobody has asked how
