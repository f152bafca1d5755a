"""`python -m ssd_lightning.predict`: detect in pictures, draw what was found, write it as JSON."""

import glob
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd_lightning.configs import run_command
from ssd_lightning.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from omegaconf import DictConfig

    from ssd_lightning.detector import Detector
    from ssd_lightning.types import Detections

log = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def main() -> None:
    """Run the command."""
    run_command("predict", predict)


def predict(config: "DictConfig") -> dict[str, Any]:
    """Detect in all pictures of a source.

    Args:
        config: as `conf/predict.yaml` composes it.

    Returns:
        What is written to `predictions.json`.

    Raises:
        UserError: the checkpoint or the source cannot be used.
    """
    from rich.progress import track

    from ssd_lightning.detector import Detector
    from ssd_lightning.training.devices import choose_device
    from ssd_lightning.training.host_memory import keep_freed_memory

    paths = find_pictures(str(config.source))
    device = choose_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    detector = Detector.load(config.checkpoint, device)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    names = output_names(paths)
    originals = {os.path.realpath(path) for path in paths}  # which, unlike Path.resolve, takes links in a circle
    for name in names.values():
        if os.path.realpath(output / name) in originals:
            raise DataError(
                f"output={output}: the annotated copy would replace the picture {name}; choose another folder"
            )
    results: list[dict[str, Any]] = []
    skipped: list[str] = []
    batches = [paths[start : start + config.batch_size] for start in range(0, len(paths), config.batch_size)]
    for batch in track(batches, description="detecting", transient=True):
        readable = list(_read(batch, skipped if config.on_error == "skip" else None))
        found = detector([image for _, image in readable])
        for (path, image), detections in zip(readable, found, strict=True):
            kept = select(detections, config.score_threshold)
            _draw(image, kept, detector, output / names[path])
            results.append({"file": str(path), "drawn": names[path], **as_record(kept, image, detector.class_names)})
    report = {
        "checkpoint": str(config.checkpoint),
        "classes": list(detector.class_names),
        "score_threshold": config.score_threshold,
        "pictures": results,
        "skipped": skipped,
    }
    (output / "predictions.json").write_text(json.dumps(report, indent=2) + "\n")
    if skipped:
        log.warning("left out %d of %d pictures:\n  %s", len(skipped), len(paths), "\n  ".join(skipped))
    total = sum(len(result["detections"]) for result in results)
    print(f"{total} detections in {len(results)} pictures: {output}/predictions.json and annotated copies beside it")
    return report


def find_pictures(source: str) -> list[Path]:
    """List the pictures of a file, a folder or a pattern, sorted.

    Raises:
        DataError: there are none.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        found = [entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES]
        wanted = f"no picture ({', '.join(sorted(SUFFIXES))}) in the folder"
    elif path.is_file():
        return [path]
    else:
        found = [name for name in _matches(path) if name.is_file()]
        wanted = "neither a file nor a folder, and nothing fits the pattern"
    if not found:
        raise DataError(f"source={source}: {wanted}")
    return sorted(found)


def _matches(pattern: Path) -> list[Path]:
    """List what fits a pattern; of a folder that is a link, `**` takes the link alone: it may lead back here."""
    if "**" not in pattern.parts:
        return [Path(name) for name in glob.glob(str(pattern))]
    place = pattern.parts.index("**")
    rest = pattern.parts[place + 1 :] or ("*",)
    folders = glob.glob(str(Path(*pattern.parts[:place]))) if place else ["."]
    below = [Path(folder).glob(str(Path("**", *rest))) for folder in folders]
    return [path for found in below for path in found if not _is_hidden(path, place)]


def _is_hidden(path: Path, parts_before: int) -> bool:
    return any(part.startswith(".") and part != ".." for part in path.parts[parts_before:])


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Name the annotated copies; pictures of the same name from different folders get a number."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name, number = f"{path.stem}.jpg", 2
        while name in taken:
            name, number = f"{path.stem}_{number}.jpg", number + 1
        taken.add(name)
        names[path] = name
    return names


def select(detections: "Detections", score_threshold: float) -> "Detections":
    """Keep the detections that reach a score."""
    keep = detections["scores"] >= score_threshold
    return {name: detections[name][keep].cpu() for name in ("boxes", "scores", "labels")}  # type: ignore[return-value]


def as_record(detections: "Detections", image: "np.ndarray", class_names: Sequence[str]) -> dict[str, Any]:
    """Give detections in pixels of their picture and plain values."""
    from ssd_lightning.ops.boxes import boxes_to_pixels

    height, width = image.shape[:2]
    boxes_px = boxes_to_pixels(detections["boxes"], (height, width)).tolist()
    rows = zip(boxes_px, detections["scores"].tolist(), detections["labels"].tolist(), strict=True)
    found = [
        {
            "class": class_names[label - 1],
            "score": round(score, 4),
            "box_xyxy_px": [round(edge, 1) for edge in box],
        }
        for box, score, label in rows
    ]
    return {"width": width, "height": height, "detections": found}


def _read(paths: Sequence[Path], skipped: list[str] | None) -> Iterator[tuple[Path, "np.ndarray"]]:
    from ssd_lightning.data.images import read_image

    for path in paths:
        try:
            yield path, read_image(path)
        except DataError as error:
            if skipped is None:
                raise
            skipped.append(str(error))


def _draw(image: "np.ndarray", detections: "Detections", detector: "Detector", path: Path) -> None:
    from PIL import Image

    from ssd_lightning.ops.boxes import boxes_to_pixels
    from ssd_lightning.visualization.draw import draw_detections

    height, width = image.shape[:2]
    drawn = draw_detections(
        image,
        boxes_xyxy_px=boxes_to_pixels(detections["boxes"], (height, width)).numpy(),
        labels=detections["labels"].numpy(),
        scores=detections["scores"].numpy(),
        class_names=detector.class_names,
    )
    Image.fromarray(drawn).save(path, quality=92)


if __name__ == "__main__":
    main()
