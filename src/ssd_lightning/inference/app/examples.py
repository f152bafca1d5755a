"""Example images for the page: from a folder, from a run's data set, or drawn."""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import yaml
from PIL import Image

from ssd_lightning.data.image_suffixes import BROWSER_MEDIA_TYPES
from ssd_lightning.data.images import read_image
from ssd_lightning.data.toy_scene import draw_toy_image
from ssd_lightning.data.toy_shapes import TOY_CLASSES
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

MOST_EXAMPLES = 8
MOST_LOOKED_AT = 20_000
"""Maximum number of files of a data set that are listed."""
THUMBNAIL_SIDE_PX = 200
TOY_SIDE_PX = 384


@dataclass(frozen=True)
class Example:
    """An encoded image for a browser."""

    name: str
    data: bytes
    media_type: str
    thumbnail: bytes
    """A small JPEG."""


def find_examples(folder: Path | None, checkpoint: Path, class_names: Sequence[str]) -> list[Example]:
    """Choose a few images.

    Args:
        folder: folder of images. None uses the run's data set if it still exists. Otherwise, a detector of toy shapes
            gets toy scenes.
        checkpoint: a file or a run directory.
        class_names: class names of the detector.

    Raises:
        DataError: the folder contains no image.
    """
    if folder is not None:
        examples = _read(_images_in(folder)) if folder.is_dir() else []
        if not examples:
            raise DataError(
                f"examples={folder}: no image ({', '.join(BROWSER_MEDIA_TYPES)}) in the folder, or no such folder"
            )
        return examples
    data = data_of_run(checkpoint)
    examples = _read(_test_images(data)) if data is not None else []
    if not examples and tuple(class_names) == tuple(TOY_CLASSES):
        return draw_toy_examples()
    return examples


def draw_toy_examples() -> list[Example]:
    """Draw toy scenes that are not in the training data."""
    size_px = (TOY_SIDE_PX, TOY_SIDE_PX)
    scenes = [draw_toy_image(seed=1, split="test", index=index, size_px=size_px)[0] for index in range(6)]
    images = [Image.fromarray(scene) for scene in scenes]
    return [
        Example(f"toy scene {number}", _encoded(image, "PNG"), "image/png", _thumbnail(image))
        for number, image in enumerate(images, 1)
    ]


def data_of_run(checkpoint: Path) -> Path | None:
    """Find the data folder that a checkpoint was trained on. None if it is unknown or no longer exists.

    A relative `data.root` is relative to where the run was started, which is usually a folder above the run's.
    """
    run = checkpoint if checkpoint.is_dir() else checkpoint.parent.parent
    try:
        root = Path(yaml.safe_load((run / "config.yaml").read_text())["data"]["root"]).expanduser()
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return None
    places = [Path.cwd(), *run.resolve().parents]
    return next((place / root for place in places if (place / root).is_dir()), None)


def _test_images(root: Path) -> list[Path]:
    """Choose images of a data set, preferably from its test split."""
    in_voc_layout = root / "JPEGImages"
    try:
        names = (root / "ImageSets" / "Main" / "test.txt").read_text().split()
    except (OSError, ValueError):
        names = []
    named = [path for name in names[:MOST_LOOKED_AT] if (path := in_voc_layout / f"{name}.jpg").is_file()]
    return _spread(named) or _images_in(root)


def _images_in(folder: Path) -> list[Path]:
    files = islice(folder.rglob("*"), MOST_LOOKED_AT)
    return _spread(sorted(path for path in files if path.suffix.lower() in BROWSER_MEDIA_TYPES and path.is_file()))


def _spread(paths: list[Path]) -> list[Path]:
    """Take a few paths at equal distances, because neighbours often look alike."""
    step = max(1, len(paths) // MOST_EXAMPLES)
    return paths[::step][:MOST_EXAMPLES]


def _read(paths: Sequence[Path]) -> list[Example]:
    examples = []
    for path in paths:
        try:
            thumbnail, data = _thumbnail(Image.fromarray(read_image(path))), path.read_bytes()
        except (DataError, OSError) as error:
            log.warning("an example is skipped: %s", error)
        else:
            examples.append(Example(path.name, data, BROWSER_MEDIA_TYPES[path.suffix.lower()], thumbnail))
    return examples


def _thumbnail(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX))
    return _encoded(small, "JPEG")


def _encoded(image: Image.Image, image_format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, format=image_format)
    return file.getvalue()
