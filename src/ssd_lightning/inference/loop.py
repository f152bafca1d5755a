"""The detection loop: images in batches through a detector, to the writers and the window."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from ssd_lightning.inference.frames import SourceImage
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.inference.window import Window
from ssd_lightning.inference.writers import Writer

Detect = Callable[[list[np.ndarray]], list[ImageDetections]]
Select = Callable[[ImageDetections], ImageDetections]


@dataclass
class Tally:
    """Counts of a run so far."""

    images: int = 0
    frames: int = 0
    detections: Counter[str] = field(default_factory=Counter)
    """Class name -> number of detections."""

    def add(self, source_image: SourceImage, found: ImageDetections) -> None:
        """Count one image or frame."""
        if source_image.frame is None:
            self.images += 1
        else:
            self.frames += 1
        self.detections.update(found.names)

    @property
    def total(self) -> int:
        """Images and frames together."""
        return self.images + self.frames


def detect_in(
    source_images: Iterable[SourceImage],
    detect: Detect,
    *,
    batch_size: int,
    select: Select,
    writers: Sequence[Writer],
    tally: Tally,
    window: Window | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> None:
    """Detect in all images and frames, with at most one batch in memory.

    The caller closes the writers. The loop ends when the user closes the window. `on_image` is called after each image.
    """
    for batch in in_batches(source_images, batch_size):
        for source_image, all_found in zip(batch, detect([source_image.image for source_image in batch]), strict=True):
            found = select(all_found)
            for writer in writers:
                writer.write(source_image, found)
            tally.add(source_image, found)
            on_image()
            if window is not None and not _show(window, source_image, found):
                return


def _show(window: Window, source_image: SourceImage, found: ImageDetections) -> bool:
    drawn, name = found.draw(score_threshold=0), str(source_image.source)
    if source_image.frame is None:
        return window.show(drawn, title=f"{name}: {len(found)} found - space: next, q: quit")
    # A camera has its own pace. A video of unknown rate is shown as fast as possible.
    fps = source_image.fps if source_image.time_s is not None and source_image.fps else 1000.0
    return window.show(drawn, title=f"{name}: frame {source_image.frame} - q: quit", fps=fps)


def in_batches(source_images: Iterable[SourceImage], size: int) -> Iterator[list[SourceImage]]:
    """Group images in order. The last batch may be smaller."""
    remaining = iter(source_images)
    while batch := list(islice(remaining, size)):
        yield batch
