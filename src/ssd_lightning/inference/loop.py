"""The detection loop: images in batches through a detector, to the writers and the window."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

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
        if source_image.clip is None:
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

    Args:
        source_images: result of `read_sources`.
        detect: detects in one batch of images.
        batch_size: images per batch.
        select: filter of the detections.
        writers: writers of the detections. The caller closes them.
        tally: counter of images and detections.
        window: window that shows the detections. The loop ends when the user closes it.
        on_image: called after each image.
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
    if source_image.clip is None:
        return window.show(
            found.draw(score_threshold=0), title=f"{source_image.source}: {len(found)} found - space: next, q: quit"
        )
    # A camera has its own pace. A video of unknown rate is shown as fast as possible.
    fps = source_image.clip.fps if source_image.time_s is not None and source_image.clip.fps else 1000.0
    return window.show(
        found.draw(score_threshold=0), title=f"{source_image.source}: frame {source_image.frame} - q: quit", fps=fps
    )


def in_batches(source_images: Iterable[SourceImage], size: int) -> Iterator[list[SourceImage]]:
    """Group images in order. The last batch may be smaller."""
    batch: list[SourceImage] = []
    for source_image in source_images:
        batch.append(source_image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
