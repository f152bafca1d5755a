"""A context in which a warning fails the test."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_warnings() -> Iterator[None]:
    """Turn warnings into errors, apart from `ResourceWarning`.

    The garbage collector gives that one at any time, also for what an earlier test did not close (gradio leaves event
    loops open).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("default", ResourceWarning)
        yield
