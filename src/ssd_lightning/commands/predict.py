"""Detect objects in images, videos or a camera stream, and save the results."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ssd_lightning.checks import require_bool, require_choice, require_number
from ssd_lightning.command_line import warn_without
from ssd_lightning.data.tiles import check_tiles
from ssd_lightning.devices import choose_device
from ssd_lightning.errors import ConfigurationError, DataError, one_line
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.frames import SourceImage, SourceReader
from ssd_lightning.inference.names import output_names
from ssd_lightning.inference.progress import Bar
from ssd_lightning.inference.results import ImageDetections, labels_of
from ssd_lightning.inference.sources import Source, find_sources
from ssd_lightning.inference.window import Window
from ssd_lightning.inference.writers import OUTPUTS, Writers, refuse_replacing
from ssd_lightning.memory import keep_freed_memory
from ssd_lightning.visualization.tables import counted

log = logging.getLogger(__name__)


def predict(config: DictConfig) -> None:
    """Detect in all images and frames of a source. Unreadable ones are skipped and listed, unless `on_error=raise`."""
    check_settings(config)
    sources = find_sources(config.source, recursive=config.recursive)
    device = choose_device(config.device)
    keep_freed_memory(device)
    detector = Detector.load(config.checkpoint, device, backend=config.backend)
    given = {name: config[name] for name in ("iou_threshold", "max_detections") if config[name] is not None}
    detector.use_postprocess(**given)
    if config.tiles is not None:
        detector = detector.with_tiles(config.tiles, config.overlap, whole_image=config.whole_image)
    labels_of(_as_list(config.classes), detector.class_names)
    skipped: list[str] = []
    with closing(Window()) if config.show else nullcontext() as window:
        seen, found, highest = _run(config, detector, sources, skipped, window)
    if skipped and len(sources) > 1:
        log.warning("skipped %d of %d sources:\n  %s", len(skipped), len(sources), "\n  ".join(skipped))
    if not seen and skipped:
        raise DataError(skipped[0] if len(skipped) == 1 else f"none of the {len(skipped)} sources can be read")
    inputs = " and ".join(counted(seen[kind], kind) for kind in ("image", "frame") if seen[kind]) or "nothing"
    classes = ", ".join(f"{count} {one_line(name)}" for name, count in found.most_common(10))
    where = f": {', '.join(_as_list(config.save))} in {Path(config.output)}" if config.save and seen else ""
    print(f"{counted(found.total(), 'detection')}{f' ({classes})' if classes else ''} in {inputs}{where}")
    if seen and not found:
        log.warning("no score reaches score_threshold=%g: the highest is %.2g", config.score_threshold, highest)


def check_settings(config: DictConfig) -> None:
    """Check the settings before anything is loaded. Raises `ConfigurationError`."""
    for output in _as_list(config.save):
        require_choice("save", output, OUTPUTS)
    require_choice("on_error", config.on_error, ("skip", "raise"))
    for name in ("recursive", "show", "whole_image"):
        require_bool(name, config[name])
    if config.classes is not None and not config.classes:
        raise ConfigurationError("classes is [], which keeps no detection; null keeps those of all classes")
    require_number("score_threshold", config.score_threshold, 0, 1)
    require_number("batch_size", config.batch_size, 1, whole=True)
    require_number("frame_stride", config.frame_stride, 1, whole=True)
    if config.max_frames is not None:
        require_number("max_frames", config.max_frames, 1, whole=True)
    if config.tiles is not None:
        check_tiles(config.tiles, config.overlap)
    else:
        warn_without("tiles", "overlap", "whole_image")
    require_number("max_download_mb", config.max_download_mb, 0, above_low=True)


def _run(
    config: DictConfig, detector: Detector, sources: Sequence[Source], skipped: list[str], window: Window | None
) -> tuple[Counter[str], Counter[str], float]:
    """Read, detect, write and show. Adds unreadable inputs to `skipped`.

    Returns the number of inputs by kind, `image` or `frame`, the number of detections by class, and the highest score.
    """
    folder, names, outputs = Path(config.output), output_names(sources), _as_list(config.save)
    classes = None if config.classes is None else _as_list(config.classes)
    has_camera = any(source.kind == "camera" for source in sources)
    seen: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    highest = 0.0

    def note(error: DataError) -> None:
        skipped.append(str(error))
        if config.on_error == "raise":
            raise error

    is_new = bool(outputs) and not folder.exists()
    try:
        refuse_replacing(outputs, folder, sources=sources, names=names)
        if outputs:  # may fail, so do it before the work
            folder.mkdir(parents=True, exist_ok=True)
        all_writers = Writers(
            outputs=outputs,
            folder=folder,
            names=names,
            header={
                "checkpoint": str(config.checkpoint),
                "classes": list(detector.class_names),
                "score_threshold": config.score_threshold,
            },
            class_names=detector.class_names,
            skipped=skipped,
        )
        # Writers are closed also on an early end, so that the files are complete.
        with closing(all_writers) as writers, Bar(len(sources)) as bar:
            reader = SourceReader(
                config.frame_stride, config.max_frames, round(config.max_download_mb * 1e6), bar.opened_video
            )
            # A viewer should not wait until a batch is full.
            at_once = 1 if window is not None or has_camera else config.batch_size
            source_images = reader.read(sources, on_bad=note)
            for source_image, all_found in detect_in(source_images, detector, at_once, config.batch_size):
                found = all_found.select(config.score_threshold, classes)
                highest = max(highest, all_found.select(0, classes).scores.max(initial=0))
                writers.write(source_image, found)
                seen["image" if source_image.frame is None else "frame"] += 1
                counts.update(found.names)
                bar.step()
                if window is not None and not _show(window, source_image, found):
                    break
    except KeyboardInterrupt:
        if not has_camera:  # a camera stream ends only this way
            raise
    except OSError as error:  # reading errors have their own message
        raise DataError(f"output={folder}: cannot write there: {error}") from error
    finally:
        if is_new and not seen:
            with suppress(OSError):  # fails if it is not empty
                folder.rmdir()
    return seen, counts, highest


def detect_in(
    source_images: Iterable[SourceImage], detector: Detector, at_once: int, batch_size: int
) -> Iterator[tuple[SourceImage, ImageDetections]]:
    """Yield each image or frame with its detections. At most `at_once` inputs, and the next one, are in memory.

    The network gets `batch_size` images, or tiles of images, in one pass.
    """
    remaining = iter(source_images)
    while batch := list(islice(remaining, at_once)):
        yield from zip(batch, detector([one.image for one in batch], batch_size=batch_size), strict=True)


def _show(window: Window, source_image: SourceImage, found: ImageDetections) -> bool:
    drawn, name = found.draw(score_threshold=0), str(source_image.source)
    if source_image.frame is None:
        return window.show(drawn, title=f"{name}: {len(found)} found - space: next, q: quit")
    # A camera has its own pace. A video of unknown rate is shown as fast as possible.
    fps = source_image.fps if source_image.time_s is not None and source_image.fps else 1000.0
    return window.show(drawn, title=f"{name}: frame {source_image.frame} - q: quit", fps=fps)


def _as_list(given: Any) -> list[str]:
    """Read a setting that is a list, one text or empty. An item that is repeated counts once."""
    if given is None:
        return []
    return [given] if isinstance(given, str) else list(dict.fromkeys(map(str, given)))
