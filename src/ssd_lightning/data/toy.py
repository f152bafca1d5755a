"""A small data set of flat shapes, generated locally and written in the layout of Pascal VOC."""

import json
import logging
import re
import shutil
from pathlib import Path

import cv2
from filelock import FileLock

from ssd_lightning.checks import require_number
from ssd_lightning.data.toy_scene import ToyObject, draw_toy_image
from ssd_lightning.data.toy_shapes import TOY_CLASSES
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

MARKER_NAME = "toy.json"
DRAWING_VERSION = 1  # incremented whenever the same settings produce other files
JPEG_QUALITY = 90
FOLDERS = ("ImageSets", "Annotations", "JPEGImages")
MIN_SIDE_PX = 96  # below this, 5 % of the side is too small for a shape

_TOY_FILE = re.compile(
    rf"{re.escape(MARKER_NAME)}|ImageSets/Main/(train|val|trainval|test)\.txt"
    r"|JPEGImages/(train|val|test)_\d{5,}\.jpg|Annotations/(train|val|test)_\d{5,}\.xml"
)


def write_toy_dataset(
    root: Path | str,
    *,
    num_train: int = 1200,
    num_val: int = 100,
    num_test: int = 300,
    image_size_px: tuple[int, int] = (192, 192),
    seed: int = 0,
) -> None:
    """Write the toy data set, unless it exists with the same settings.

    An image shows up to six shapes on a textured background: rotated, tilted, shaded, some of them outlined.
    Later shapes cover earlier ones, some extend over the border, and about 5 % of the images are empty. Neither
    colour nor size nor position depends on the class. Image i of a split depends only on the seed, the split, i and
    the size.

    Boxes are tight around the visible part of an object. An object is `difficult` if less than half of it is
    visible, if the longer side of its box is under 8 % of the image's shorter side, or if its colour is
    less than 20 CIELAB units from its surroundings. At least a fifth of every object is visible.

    The set is built next to `root` and moved into place when complete. Processes that call this at the same time
    wait for the first one.

    Args:
        root: folder of the data set; created if missing.
        num_train: images of the split `train`.
        num_val: images of the split `val`; `trainval` is `train` and `val`.
        num_test: images of the split `test`.
        image_size_px: (height, width) of all images.
        seed: base seed.

    Raises:
        ConfigurationError: a number is negative or not whole, or images are too small for the smallest objects.
        DataError: `root` contains files that this function did not write, or is not writable.
    """
    root = Path(root).resolve()
    size_px = (image_size_px[0], image_size_px[1])
    counts = {"train": num_train, "val": num_val, "test": num_test}
    for name, value in {"num_train": num_train, "num_val": num_val, "num_test": num_test, "seed": seed}.items():
        require_number(f"toy data set: {name}", value, 0, whole=True)
    for side in size_px:
        require_number("toy data set: a side in pixels", side, MIN_SIDE_PX, whole=True)
    settings = {
        "dataset": "ssd_lightning toy",
        "version": DRAWING_VERSION,
        "images": counts,
        "image_size_px": list(size_px),
        "seed": seed,
    }
    if _is_complete(root, settings, counts):
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.with_name(f".{root.name}.lock")):
            if not _is_complete(root, settings, counts):
                _refuse_foreign_files(root)
                log.info("drawing %d toy images into %s", sum(counts.values()), root)
                unfinished = root.with_name(f".{root.name}.toy-unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                _write_files(unfinished, counts=counts, size_px=size_px, seed=seed)
                (unfinished / MARKER_NAME).write_text(json.dumps(settings, indent=2) + "\n")
                _move_into_place(unfinished, root)
    except OSError as error:
        raise DataError(f"the toy data set cannot be written to {root}: {error}") from error


def _is_complete(root: Path, settings: dict[str, object], counts: dict[str, int]) -> bool:
    try:
        if json.loads((root / MARKER_NAME).read_text()) != settings:
            return False
        present = [sum(1 for _ in (root / folder).iterdir()) for folder in ("JPEGImages", "Annotations")]
    except (OSError, ValueError):
        return False
    return min(present) >= sum(counts.values())


def _refuse_foreign_files(root: Path) -> None:
    if not root.exists():
        return
    if not root.is_dir():
        raise DataError(f"{root} is a file: the toy data set needs a folder of its own")
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()]
    if files and MARKER_NAME not in files:
        raise DataError(f"{root} holds files but no {MARKER_NAME}: it is not a toy data set and is left as it is")
    foreign = [name for name in files if not _TOY_FILE.fullmatch(name)]
    if foreign:
        raise DataError(f"{root} holds '{foreign[0]}', which the toy data set did not write: it is left as it is")


def _write_files(root: Path, *, counts: dict[str, int], size_px: tuple[int, int], seed: int) -> None:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    names: dict[str, list[str]] = {}
    for split, count in counts.items():
        names[split] = [f"{split}_{index:05d}" for index in range(count)]
        for index, name in enumerate(names[split]):
            image, objects = draw_toy_image(seed=seed, split=split, index=index, size_px=size_px)
            options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1]
            (root / "JPEGImages" / f"{name}.jpg").write_bytes(encoded.tobytes())
            (root / "Annotations" / f"{name}.xml").write_text(_voc_xml(f"{name}.jpg", size_px, objects))
    names["trainval"] = names["train"] + names["val"]
    for split, members in names.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in members))


def _move_into_place(unfinished: Path, root: Path) -> None:
    """Move the parts, not the folder: `root` may be the current directory or a volume."""
    root.mkdir(exist_ok=True)
    for folder in FOLDERS:
        shutil.rmtree(root / folder, ignore_errors=True)
    for name in (MARKER_NAME, *FOLDERS):  # the set is complete with the last of them
        shutil.move(unfinished / name, root / name)
    unfinished.rmdir()


def _voc_xml(filename: str, size_px: tuple[int, int], objects: list[ToyObject]) -> str:
    height, width = size_px
    return (
        f"<annotation>\n  <folder>toy</folder>\n  <filename>{filename}</filename>\n"
        "  <source><database>ssd_lightning toy shapes</database></source>\n"
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"  <segmented>0</segmented>\n{''.join(map(_voc_object, objects))}</annotation>\n"
    )


def _voc_object(item: ToyObject) -> str:
    x1, y1, x2, y2 = item.box_xyxy_px
    # VOC counts pixels from 1, and its maximum is the last pixel itself, not its right edge.
    return (
        f"  <object>\n    <name>{TOY_CLASSES[item.label - 1]}</name>\n    <pose>Unspecified</pose>\n"
        f"    <truncated>{item.truncated:d}</truncated>\n    <difficult>{item.difficult:d}</difficult>\n"
        f"    <bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>\n"
        "  </object>\n"
    )
