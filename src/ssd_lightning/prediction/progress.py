"""A bar of images and frames, for work of known and of unknown length."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Speed(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """Write it, once there is one."""
        return Text("" if task.speed is None else f"{task.speed:.1f} images/s")


class Bar:
    """Counts steps towards an expected number, which may turn out to be another or unknown.

    Args:
        progress: that is shown.
        expected: steps; a video counts as one until it is opened.
    """

    def __init__(self, progress: Progress, expected: int) -> None:
        self._progress = progress
        self._expected: int | None = expected
        self._task = progress.add_task("detecting", total=expected)

    def step(self) -> None:
        """Count one image or frame."""
        self._progress.advance(self._task)

    def opened_video(self, frames: int | None) -> None:
        """Expect the frames of a video in place of one step; None: nobody knows how many."""
        if self._expected is not None:
            self._expected = None if frames is None else self._expected + frames - 1
        self._progress.tasks[0].total = self._expected  # to `update`, None is no change


@contextmanager
def progress_bar(expected: int) -> Iterator[Bar]:
    """Show a bar on a terminal's error output, as long as the block lasts."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Speed(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # Into a file or a pipe even a bar that goes away leaves an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bar(progress, expected)
