"""A progress bar for a known or unknown number of images."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Speed(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        """Return the text. Empty until the speed is known."""
        return Text("" if task.speed is None else f"{task.speed:.1f} images/s")


class Bar:
    """Counts steps towards an expected number, which may change or become unknown. A video is one until it opens."""

    def __init__(self, progress: Progress, expected: int) -> None:
        self._progress = progress
        self._expected: int | None = expected
        self._task = progress.add_task("detecting", total=expected)

    def step(self) -> None:
        """Count one image or frame."""
        self._progress.advance(self._task)

    def opened_video(self, frames: int | None) -> None:
        """Replace the one step of a video by its number of frames. None: unknown."""
        if self._expected is not None:
            self._expected = None if frames is None else self._expected + frames - 1
        self._progress.tasks[0].total = self._expected  # `update` ignores None


@contextmanager
def progress_bar(expected: int) -> Iterator[Bar]:
    """Show a bar on standard error during a `with` block, if it is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Speed(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # In a file or a pipe even a transient bar leaves an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bar(progress, expected)
