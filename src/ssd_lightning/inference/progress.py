"""A progress bar for a known or unknown number of images."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Speed(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        """Return the text. Empty until the speed is known."""
        return Text("" if task.speed is None else f"{task.speed:.1f} images/s")


class Bar(Progress):
    """Counts steps towards an expected number, which may change or become unknown. A video is one until it opens.

    It is shown on standard error during a `with` block, if this is a terminal.
    """

    def __init__(self, expected: int) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
        # In a file or a pipe even a transient bar leaves an empty line.
        super().__init__(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._expected: int | None = expected
        self._counted = self.add_task("detecting", total=expected)

    def step(self) -> None:
        """Count one image or frame."""
        self.advance(self._counted)

    def opened_video(self, frames: int | None) -> None:
        """Replace the one step of a video by its number of frames. None: unknown."""
        if self._expected is not None:
            self._expected = None if frames is None else self._expected + frames - 1
        self.tasks[0].total = self._expected  # `update` ignores None
