"""Detect objects in images, videos or a camera stream, and save the results."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ssd_lightning.checks import require_bool, require_choice, require_number
from ssd_lightning.data.tiles import check_tiles
from ssd_lightning.devices import choose_device
from ssd_lightning.errors import DataError, UserError, one_line
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.frames import SourceReader
from ssd_lightning.inference.loop import Tally, detect_in
from ssd_lightning.inference.names import output_names
from ssd_lightning.inference.progress import progress_bar
from ssd_lightning.inference.results import labels_of
from ssd_lightning.inference.sources import Source, find_sources
from ssd_lightning.inference.window import Window
from ssd_lightning.inference.writers import OUTPUTS, LazyWriter, Writer, open_writers, refuse_replacing
from ssd_lightning.memory import keep_freed_memory
from ssd_lightning.visualization.tables import counted

log = logging.getLogger(__name__)


def predict(config: DictConfig) -> dict[str, Any]:
    """Detect in all images and frames of a source.

    Unreadable inputs are reported and skipped, unless `on_error=raise`.

    Args:
        config: the composed `conf/predict.yaml`.

    Returns:
        Number of `images`, `frames` and `detections`, and the list of `skipped` inputs.

    Raises:
        UserError: the checkpoint or a setting is not usable, or nothing can be read.
    """
    check_settings(config)
    sources = find_sources(config.source, recursive=config.recursive)
    device = choose_device(config.device)
    keep_freed_memory(device)
    detector = Detector.load(config.checkpoint, device, backend=config.backend)
    overrides = {name: config[name] for name in ("iou_threshold", "max_detections") if config[name] is not None}
    if overrides:
        detector.use_postprocess(**overrides)
    if config.tiles is not None:
        detector = detector.with_tiles(config.tiles, config.overlap, whole_image=config.whole_image)
    labels_of(_as_list(config.classes), detector.class_names)
    skipped: list[str] = []
    with ExitStack() as stack:
        window = None
        if config.show:
            window = Window()
            stack.callback(window.close)
        tally = _run(config, detector, sources, skipped, window)
    if skipped and len(sources) > 1:
        log.warning("skipped %d of %d sources:\n  %s", len(skipped), len(sources), "\n  ".join(skipped))
    if not tally.total and skipped:
        raise DataError(skipped[0] if len(skipped) == 1 else f"none of the {len(skipped)} sources can be read")
    _print_summary(tally, Path(config.output), _as_list(config.save))
    return {
        "images": tally.images,
        "frames": tally.frames,
        "detections": tally.detections.total(),
        "skipped": skipped,
    }


def check_settings(config: DictConfig) -> None:
    """Check the settings before anything is loaded.

    Raises:
        ConfigurationError: a value is not usable.
    """
    for output in _as_list(config.save):
        require_choice("save", output, OUTPUTS)
    require_choice("on_error", config.on_error, ("skip", "raise"))
    for name in ("recursive", "show", "whole_image"):
        require_bool(name, config[name])
    require_number("score_threshold", config.score_threshold, 0, 1)
    require_number("batch_size", config.batch_size, 1, whole=True)
    require_number("frame_stride", config.frame_stride, 1, whole=True)
    if config.max_frames is not None:
        require_number("max_frames", config.max_frames, 1, whole=True)
    if config.tiles is not None:
        check_tiles(config.tiles, config.overlap)
    require_number("max_download_mb", config.max_download_mb, 0, above_low=True)


def _run(
    config: DictConfig,
    detector: Detector,
    sources: Sequence[Source],
    skipped: list[str],
    window: Window | None,
) -> Tally:
    """Read, detect, write and show. Adds unreadable inputs to `skipped`."""
    folder, names, outputs = Path(config.output), output_names(sources), _as_list(config.save)
    limits = config.frame_stride, config.max_frames, round(config.max_download_mb * 1e6)
    classes = None if config.classes is None else _as_list(config.classes)
    has_camera = any(source.kind == "camera" for source in sources)
    header = {
        "checkpoint": str(config.checkpoint),
        "classes": list(detector.class_names),
        "score_threshold": config.score_threshold,
    }
    tally = Tally()

    def note(error: DataError) -> None:
        skipped.append(str(error))
        if config.on_error == "raise":
            raise error

    def writers() -> list[Writer]:
        return open_writers(
            outputs, folder, names=names, header=header, class_names=detector.class_names, skipped=skipped
        )

    is_new = bool(outputs) and not folder.exists()
    try:
        refuse_replacing(outputs, folder, sources=sources, names=names)
        if outputs:  # may fail, so do it before the work
            folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            writer = LazyWriter(writers)
            stack.callback(writer.close)  # also on an early end, so that the files are complete
            bar = stack.enter_context(progress_bar(len(sources)))
            detect_in(
                SourceReader(*limits, bar.opened_video).read(sources, on_bad=note),
                lambda images: detector(images, batch_size=config.batch_size),  # of images, or of their tiles
                # A viewer should not wait until a batch is full.
                batch_size=1 if window is not None or has_camera else config.batch_size,
                select=lambda found: found.select(config.score_threshold, classes),
                writers=[writer],
                tally=tally,
                window=window,
                on_image=bar.step,
            )
    except KeyboardInterrupt:
        if not has_camera:  # a camera stream ends only this way
            raise
    except UserError:
        raise
    except OSError as error:  # reading errors have their own message
        raise DataError(f"output={folder}: cannot write there: {error}") from error
    finally:
        if is_new and not tally.total:
            with suppress(OSError):  # fails if it is not empty
                folder.rmdir()
    return tally


def _as_list(given: Any) -> list[str]:
    """Read a setting that is a list, one text or empty."""
    if given is None:
        return []
    return [given] if isinstance(given, str) else [str(item) for item in given]


def _print_summary(tally: Tally, folder: Path, outputs: Sequence[str]) -> None:
    seen = [counted(count, what) for count, what in ((tally.images, "image"), (tally.frames, "frame")) if count]
    classes = ", ".join(f"{count} {one_line(name)}" for name, count in tally.detections.most_common(10))
    found = counted(tally.detections.total(), "detection") + (f" ({classes})" if classes else "")
    where = f": {', '.join(outputs)} in {folder}" if outputs and tally.total else ""
    print(f"{found} in {' and '.join(seen) or 'nothing'}{where}")
