"""Run a side of a comparison in its own process, so that its settings do not affect the other side."""

from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType

import torch
import torch.multiprocessing as mp

Work = Callable[[], object]


class Side:
    """Runs a piece of work in another process on each call, and waits for it.

    Args:
        make: creates the work there; it must be picklable.
    """

    def __init__(self, make: Callable[[], Work]) -> None:
        context = mp.get_context("spawn")
        self._pipe, self._their_end = context.Pipe()
        arguments = (make, self._their_end, torch.get_num_threads())
        self._process = context.Process(target=_serve, args=arguments, daemon=True)

    def __enter__(self) -> "Side":
        self._process.start()
        self._their_end.close()  # with an open copy here, the end of the process would go unnoticed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(BrokenPipeError):
            self._pipe.send(False)
        self._process.join()

    def __call__(self) -> None:
        """Do the work once.

        Raises:
            RuntimeError: the work failed; the message is that of the other process.
        """
        try:
            self._pipe.send(True)
            problem = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join()
            raise RuntimeError(f"a side of the comparison ended with exit code {self._process.exitcode}") from error
        if problem:
            raise RuntimeError(problem)


def _serve(make: Callable[[], Work], pipe: Connection, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    work = None
    while pipe.recv():
        try:
            work = work or make()
            work()
            pipe.send("")
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
