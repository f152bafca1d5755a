"""Shots in batches through a detector, to the writers and the window."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ssd_lightning.detections import ImageDetections
from ssd_lightning.detector import Detector
from ssd_lightning.prediction.frames import Shot
from ssd_lightning.prediction.window import Window
from ssd_lightning.prediction.writers import Writer

Select = Callable[[ImageDetections], ImageDetections]


@dataclass
class Tally:
    """What a run has seen so far."""

    images: int = 0
    frames: int = 0
    detections: Counter[str] = field(default_factory=Counter)
    """Class name -> number."""

    def add(self, shot: Shot, found: ImageDetections) -> None:
        """Count one shot."""
        if shot.clip is None:
            self.images += 1
        else:
            self.frames += 1
        self.detections.update(found.names)

    @property
    def shots(self) -> int:
        """Images and frames together."""
        return self.images + self.frames


def detect_in(
    shots: Iterable[Shot],
    detector: Detector,
    *,
    batch_size: int,
    select: Select,
    writers: Sequence[Writer],
    tally: Tally,
    window: Window | None = None,
    on_shot: Callable[[], None] = lambda: None,
) -> None:
    """Detect in all shots; no more than a batch of them is held.

    Args:
        shots: what `shots_of` gives.
        detector: finds.
        batch_size: shots that the network sees at a time.
        select: keeps some of the detections.
        writers: get them; the caller closes them.
        tally: counts them.
        window: shows them; once its user wants no more, this returns.
        on_shot: is called after each.
    """
    for batch in in_batches(shots, batch_size):
        for shot, all_found in zip(batch, detector([shot.image for shot in batch]), strict=True):
            found = select(all_found)
            for writer in writers:
                writer.write(shot, found)
            tally.add(shot, found)
            on_shot()
            if window is not None and not _show(window, shot, found):
                return


def _show(window: Window, shot: Shot, found: ImageDetections) -> bool:
    if shot.clip is None:
        return window.show(
            found.draw(score_threshold=0), title=f"{shot.source}: {len(found)} found - space: next, q: quit"
        )
    # A camera sets the pace by itself; a video of unknown rate plays as fast as it is detected in.
    fps = shot.clip.fps if shot.time_s is not None and shot.clip.fps else 1000.0
    return window.show(found.draw(score_threshold=0), title=f"{shot.source}: frame {shot.frame} - q: quit", fps=fps)


def in_batches(shots: Iterable[Shot], size: int) -> Iterator[list[Shot]]:
    """Group shots in their order; the last group may be smaller."""
    batch: list[Shot] = []
    for shot in shots:
        batch.append(shot)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
