"""Ends a rank when its launcher or another rank has died.

The backends do not ensure this. gloo notices a death at the next exchange, NCCL after ten minutes or never. Lightning's
launcher watches its children, but they do not watch the launcher. torchrun waits 30 s before it kills. srun kills only
if asked to.
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
"""Environment variable with the process id of the rank that started the others."""
POLL_S = 1.0
GRACE_S = 3.0
"""Time for a rank that has lost another one to end by itself with a more informative error."""
ENDING_S = 20.0
"""The same for a rank that is already ending and may be writing its last files."""
IS_ENDING = threading.Event()
"""Set when this process has finished its run, but may end later than the others."""
HANDSHAKE_S = 30.0
STRANGER_S = 5.0
MOST_BYTES = 1024


def end_with_launcher() -> None:
    """End this process when its launcher is gone: torchrun, or rank 0 with Lightning's launcher.

    Call this first in every process of a run. A process started by the user is not bound to its shell.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(os.getppid())
    elif "LOCAL_RANK" not in os.environ:
        os.environ[LAUNCHER] = str(os.getpid())  # for the ranks that Lightning starts
    elif LAUNCHER in os.environ:
        end_with_parent(int(os.environ[LAUNCHER]))


def end_with_parent(parent: int) -> None:
    """Start a thread that ends this process when the parent process with this id is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_S)
        if IS_ENDING.is_set():
            time.sleep(ENDING_S)
        end_now(f"the process {parent} that started this one is gone; it ends too")

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def end_data_worker(worker: int) -> None:
    """End a DataLoader worker when its rank ends. For `worker_init_fn`.

    torch's own watchdog does not end a worker that is waiting to send a batch that nobody reads.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        end_with_parent(parent.pid)


def end_now(reason: str) -> None:
    """End this process and its data workers without waiting for the main thread, which may hang in an exchange."""
    if multiprocessing.parent_process() is None:  # data workers print nothing
        print(f"error: {reason}", file=sys.stderr, flush=True)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(1)


class Lifeline(pl.Callback):
    """Ends this rank when another rank has died, on any machine, even while the backend is waiting.

    Every rank keeps a connection to rank 0 while it trains or tests. The kernel closes the connection when the process
    ends, and detects within 20 s that a machine no longer answers. A rank that ends normally sends a message first.
    Rank 0 tells the others which rank was lost.
    """

    def __init__(self) -> None:
        self._lines: dict[int, socket.socket] = {}
        self._grace_s = GRACE_S
        self._is_closed = threading.Event()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Connect to rank 0, and watch the connections."""
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
        """Close the connections."""
        IS_ENDING.set()
        self._leave()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the connections if all ranks agreed to stop. Otherwise let the other ranks notice the death."""
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
                line.shutdown(socket.SHUT_RDWR)  # wakes the watching thread
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
    # A data worker would keep its rank's connections open after the rank has died.
    for line in OPEN_LINES:
        os.close(line.detach())
    OPEN_LINES.clear()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_close_in_child)


def connect(rank: int, world_size: int, *, is_one_machine: bool) -> dict[int, socket.socket]:
    """Connect every rank to rank 0. A collective call.

    Returns:
        On rank 0, the connections to the other ranks, by rank. On another rank, the connection to rank 0.

    Raises:
        ConfigurationError: a machine cannot reach another one.
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
            "exchange data over any free port, so no firewall may block ports between their machines"
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
        if not hmac.compare_digest(message.encode(), secret.encode()):  # any program on the network may connect
            line.close()
            continue
        _keep(line)
        lines[int(rank)] = line
    return lines


def _keep(line: socket.socket) -> None:
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # in the kernel: a Python thread may wait minutes for the GIL
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def send(line: socket.socket, message: str) -> None:
    """Send a line of text. Nothing happens if the other side is gone."""
    try:
        line.sendall(f"{message}\n".encode())
    except OSError:
        return


def receive(line: socket.socket) -> str:
    """Wait for a line of text. It is empty if the other side is gone."""
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
