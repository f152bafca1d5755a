"""Example images for the demo page: from a folder, from a run's data set, or drawn."""

import logging
from collections.abc import Sequence
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


def find_examples(folder: Path | None, checkpoint: Path, class_names: Sequence[str], *, scratch: Path) -> list[Path]:
    """Choose a few images from a folder.

    Without a folder, they come from the data set of the checkpoint's run if it still exists. Otherwise, a detector of
    toy shapes gets toy scenes that are not in the training data, drawn into the folder `scratch`.

    Raises:
        DataError: the folder contains no image.
    """
    if folder is not None:
        examples = _images_in(folder) if folder.is_dir() else []
        if not examples:
            kinds = ", ".join(BROWSER_MEDIA_TYPES)
            raise DataError(f"examples={folder}: no image ({kinds}) in the folder, or no such folder")
        return examples
    data = data_of_run(checkpoint)
    examples = _test_images(data) if data is not None else []
    if not examples and tuple(class_names) == tuple(TOY_CLASSES):
        for index in range(6):
            pixels, _ = draw_toy_image(seed=1, split="test", index=index, size_px=(384, 384))
            examples.append(scratch / f"toy_scene_{index + 1}.png")
            Image.fromarray(pixels).save(examples[-1])
    return examples


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
    try:
        names = (root / "ImageSets" / "Main" / "test.txt").read_text().split()[:MOST_LOOKED_AT]
    except (OSError, ValueError):
        names = []
    named = [path for name in names if (path := root / "JPEGImages" / f"{name}.jpg").is_file()]
    return _spread(named) or _images_in(root)


def _images_in(folder: Path) -> list[Path]:
    files = islice(folder.rglob("*"), MOST_LOOKED_AT)
    return _spread(sorted(path for path in files if path.suffix.lower() in BROWSER_MEDIA_TYPES and path.is_file()))


def _spread(paths: list[Path]) -> list[Path]:
    """Take a few readable images at equal distances, because neighbours often look alike."""
    readable = []
    for path in paths[:: max(1, len(paths) // MOST_EXAMPLES)][:MOST_EXAMPLES]:
        try:
            read_image(path)
        except DataError as error:
            log.warning("an example is skipped: %s", error)
        else:
            readable.append(path)
    return readable
