"""No rank outlives another: what ends a process whose launcher, or whose fellow, is gone.

Backends do not see to it. gloo notices a death at the next exchange, NCCL after ten minutes or never; Lightning's
launcher looks after its children but they not after it; torchrun waits 30 s before it kills; srun kills only if asked.
"""

import hmac
import multiprocessing
import os
import secrets
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
from torch import distributed

from ssd_lightning.errors import ConfigurationError

LAUNCHER = "SSD_LIGHTNING_LAUNCHER"
"""Environment variable with the process id of the rank that starts the others."""
POLL_S = 1.0
GRACE_S = 3.0
"""A rank that has lost another may still end by itself, with an error that says more."""
ENDING_S = 20.0
"""The same for a rank that is ending already, and may be writing its last files."""
IS_ENDING = threading.Event()
"""Whether this process has no more part in a run and may just be slower to leave than others."""
HANDSHAKE_S = 30.0
STRANGER_S = 5.0
MOST_BYTES = 1024


def end_with_launcher() -> None:
    """End this process when the one that started it as a rank is gone: torchrun, or rank 0 of Lightning's launcher.

    To be called first in every process of a run. One that a user started is not bound to the shell it came from.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(os.getppid())
    elif "LOCAL_RANK" not in os.environ:
        os.environ[LAUNCHER] = str(os.getpid())  # for the ranks that Lightning will start from here
    elif LAUNCHER in os.environ:
        end_with_parent(int(os.environ[LAUNCHER]))


def end_with_parent(parent: int) -> None:
    """Watch, in a thread, that this process's parent has this id, and end the process when it is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_S)
        if IS_ENDING.is_set():
            time.sleep(ENDING_S)
        end_now(f"the process {parent} that started this one is gone; it ends too")

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def end_data_worker(worker: int) -> None:
    """End a worker of a DataLoader with its rank; to be its `worker_init_fn`.

    torch's own watch lets a worker leave its loop, but not while it waits to send a batch that nobody reads.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        end_with_parent(parent.pid)


def end_now(reason: str) -> None:
    """End this process and its data workers without waiting for its main thread, which may hang in an exchange."""
    if multiprocessing.parent_process() is None:  # a data worker ends in silence
        print(f"error: {reason}", file=sys.stderr, flush=True)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(1)


class Lifeline(pl.Callback):
    """Ends this rank when another one has died, on whatever machine, whatever the backend is waiting for.

    Every rank holds a connection to rank 0 while it trains or tests; the kernel closes it when the process ends,
    however it does, and finds out within 20 s when a machine does not answer any more. Who ends in order says so
    before. Rank 0 passes on which rank was lost.
    """

    def __init__(self) -> None:
        self._lines: dict[int, socket.socket] = {}
        self._grace_s = GRACE_S
        self._is_closed = threading.Event()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Connect with rank 0, and watch."""
        if trainer.world_size == 1:
            return
        IS_ENDING.clear()
        self._is_closed = threading.Event()
        self._lines = connect(trainer.global_rank, trainer.world_size, is_one_machine=trainer.num_nodes == 1)
        for rank, line in self._lines.items():
            OPEN_LINES.add(line)
            threading.Thread(
                target=self._watch, args=(rank, line, self._is_closed), daemon=True, name=f"watch-rank-{rank}"
            ).start()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave in order."""
        IS_ENDING.set()
        self._leave()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave in order where the run was stopped, which all ranks agree upon; else let the others notice."""
        self._grace_s = ENDING_S
        IS_ENDING.set()
        if isinstance(exception, (SystemExit, KeyboardInterrupt)):
            self._leave()

    def _leave(self) -> None:
        self._is_closed.set()
        for line in self._lines.values():
            OPEN_LINES.discard(line)
            send(line, "bye")
            with suppress(OSError):  # the other side may be gone
                line.shutdown(socket.SHUT_RDWR)  # which wakes the thread that watches
            line.close()
        self._lines = {}

    def _watch(self, rank: int, line: socket.socket, is_closed: threading.Event) -> None:
        message = receive(line)
        if message == "bye" or is_closed.is_set():
            return
        lost = int(message.removeprefix("lost ")) if message.startswith("lost ") else rank
        for other in list(self._lines.values()):
            send(other, f"lost {lost}")
        time.sleep(self._grace_s)
        if not is_closed.is_set():
            end_now(f"rank {lost} has ended before the run was over; rank {distributed.get_rank()} ends too")


OPEN_LINES: set[socket.socket] = set()


def _close_in_child() -> None:
    # A data worker would hold its rank's connections open after the rank has died.
    for line in OPEN_LINES:
        os.close(line.detach())
    OPEN_LINES.clear()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_close_in_child)


def connect(rank: int, world_size: int, *, is_one_machine: bool) -> dict[int, socket.socket]:
    """Connect every rank with rank 0; a collective call.

    Returns:
        Rank 0's connections to the others by rank; of another rank, the one to rank 0.

    Raises:
        ConfigurationError: two machines do not reach each other.
    """
    server = _serve(is_one_machine) if rank == 0 else None
    offer: list[Any] = [(server.getsockname()[1], secrets.token_hex(16)) if server else None]
    distributed.broadcast_object_list(offer, src=0)
    port, secret = offer[0]
    host = "127.0.0.1" if is_one_machine else os.environ["MASTER_ADDR"]
    try:
        if server is not None:
            with server:
                return _accept(server, world_size, secret)
        line = socket.create_connection((host, port), timeout=HANDSHAKE_S)
    except OSError as error:
        raise ConfigurationError(
            f"rank {rank} of {world_size}: no connection between the ranks over {host}, port {port} ({error}); ranks "
            "exchange data over any free port, so that no firewall may stand between their machines"
        ) from error
    _keep(line)
    send(line, f"{secret} {rank}")
    return {0: line}


def _serve(is_one_machine: bool) -> socket.socket:
    if is_one_machine:
        return socket.create_server(("127.0.0.1", 0))
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _accept(server: socket.socket, world_size: int, secret: str) -> dict[int, socket.socket]:
    server.settimeout(HANDSHAKE_S)
    lines: dict[int, socket.socket] = {}
    while len(lines) < world_size - 1:
        line, _ = server.accept()
        line.settimeout(STRANGER_S)
        message, _, rank = receive(line).partition(" ")
        if not hmac.compare_digest(message.encode(), secret.encode()):  # anybody on the network may knock
            line.close()
            continue
        _keep(line)
        lines[int(rank)] = line
    return lines


def _keep(line: socket.socket) -> None:
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # by the kernel: a thread of ours may wait minutes for the interpreter's lock
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def send(line: socket.socket, message: str) -> None:
    """Send a line of text; to one who is gone, nothing."""
    try:
        line.sendall(f"{message}\n".encode())
    except OSError:
        return


def receive(line: socket.socket) -> str:
    """Wait for a line of text; it is empty if the other side is gone."""
    received = b""
    while not received.endswith(b"\n") and len(received) < MOST_BYTES:
        try:
            part = line.recv(256)
        except OSError:
            return ""
        if not part:
            return ""
        received += part
    return received.partition(b"\n")[0].decode(errors="replace")
