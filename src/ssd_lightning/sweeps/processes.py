"""Runs each job in a process: starts it, forwards signals, and kills what is left of it. A job ends with its sweep."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

PARENT = "SSD_LIGHTNING_SWEEP_PROCESS"
"""Environment variable of a job with the process id of the sweep."""
LOOK_EVERY_S = 0.5
GRACE_S = 120.0
"""Time for a job to write its checkpoint after it received the signal to end."""


@dataclass(frozen=True)
class Ending:
    """How a process ended."""

    code: int
    """Exit code as in a shell: 128 + n after signal n."""
    reason: str
    """Description of the error. Empty if the code is 0."""
    signal: int | None
    """Last signal to the sweep that was forwarded. None if there was none."""
    given_up: bool
    """Whether it was ended because `give_up` returned true."""
    seconds: float


def run_process(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    console: Path | None = None,
    give_up: Callable[[], bool] | None = None,
) -> Ending:
    """Run a command to its end, and forward signals to it.

    Args:
        command: program and arguments.
        environment: further variables.
        console: file for the output. None writes to the terminal.
        give_up: called twice a second. The process is ended early if it returns true.
    """
    with contextlib.ExitStack() as stack:
        output = None if console is None else stack.enter_context(console.open("ab"))
        began = time.monotonic()
        process = subprocess.Popen(  # noqa: S603
            list(command),
            stdout=output,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {}), PARENT: str(os.getpid())},
            start_new_session=True,  # otherwise Ctrl-C would reach it twice
        )
        received: list[int] = []
        stack.enter_context(_passing_on(process, received))
        last_lines: deque[str] = deque(maxlen=50)
        reader = threading.Thread(target=_copy, args=(process.stderr, output, last_lines), daemon=True)
        reader.start()
        given_up = _wait(process, received, give_up or (lambda: False))
        if process.returncode != 0:  # its ranks and workers must not outlive it
            _kill_group(process.pid)
        reader.join(timeout=5)
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        return Ending(
            code=code,
            reason=describe(code, list(last_lines)) if code else "",
            signal=received[-1] if received else None,
            given_up=given_up,
            seconds=time.monotonic() - began,
        )


def describe(code: int, last_lines: Sequence[str]) -> str:
    """Describe in one line why a process ended: its own error, the signal, or the last line of its standard error."""
    errors = [line.partition("error: ")[2] for line in last_lines if line.startswith("error: ")]
    if errors:
        return errors[-1]
    if code == 128 + signal.SIGKILL:
        return "killed by SIGKILL, usually because memory ran out"
    frames = [at for at, line in enumerate(last_lines) if line.startswith('  File "')]
    after_trace = list(last_lines[frames[-1] :]) if frames else []
    raised = [line for line in after_trace if line and not line.startswith(" ")]
    if raised:
        return raised[0]
    written = [line for line in last_lines if line.strip()]
    with contextlib.suppress(ValueError):
        return f"ended by {signal.Signals(code - 128).name}"
    return written[-1].strip() if written else f"exit code {code}"


def _wait(process: subprocess.Popen[bytes], received: Sequence[int], give_up: Callable[[], bool]) -> bool:
    given_up, deadline = False, None
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=LOOK_EVERY_S)
            return given_up
        if not given_up and not received and give_up():
            given_up = True
            process.send_signal(signal.SIGTERM)
        if deadline is None and (given_up or {signal.SIGINT, signal.SIGTERM} & set(received)):
            deadline = time.monotonic() + GRACE_S
        if deadline is not None and time.monotonic() > deadline:
            _kill_group(process.pid)


@contextlib.contextmanager
def _passing_on(process: subprocess.Popen[bytes], received: list[int]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield
        return

    def pass_on(signum: int, frame: Any) -> None:
        received.append(signum)
        process.send_signal(signum)

    passed_on = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # Windows lacks the last, but has to import this
    before = {signum: signal.signal(signum, pass_on) for signum in passed_on}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _copy(source: IO[bytes], output: IO[bytes] | None, last_lines: deque[str]) -> None:
    for line in source:
        text = line.decode(errors="replace").rstrip("\n")
        last_lines.append(text)
        if output is None:
            print(text, file=sys.stderr, flush=True)
        else:
            output.write(line)
            output.flush()


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def is_job() -> bool:
    """Whether this process is a job of a sweep."""
    return PARENT in os.environ


def end_with_sweep() -> None:
    """In a job, watch the sweep's process and send SIGTERM to this process once it is gone."""
    parent = os.environ.get(PARENT)
    if parent is None or os.environ.get("LOCAL_RANK", "0") != "0":  # other ranks end with rank 0
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="end-with-sweep").start()
