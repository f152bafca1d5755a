"""`data.yaml`, or what stands for it: where the images of YOLO's splits are, and what the classes are called."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ssd_lightning.data.formats.files import MissingSplitError, inside_first, is_within, read_lines, read_text
from ssd_lightning.data.formats.image_files import find_image, path_tails, portable_path, without_parents
from ssd_lightning.data.image_suffixes import is_image_name
from ssd_lightning.data.split_names import SPLIT_NAMES
from ssd_lightning.errors import DataError

IMAGES = ("images", "Images")
SETTINGS_FILES = ("data.yaml", "data.yml", "dataset.yaml")
OTHER_SETTINGS = ("*.yaml", "*.yml", "*.data", "data/*.data", "cfg/*.data")
NAMES_FILES = ("classes.txt", "obj.names", "classes.names", "_darknet.labels")


@dataclass(frozen=True)
class Settings:
    """The settings of a root."""

    root: Path
    path: Path
    """The file."""
    values: dict[str, Any]
    """Empty without a file."""

    def get(self, key: str) -> Any:
        """Return a value; None if it is not stated."""
        value = self.values.get(key)
        return None if value in ("", "null", "Null", "NULL", "~") else value

    def stated_places(self, split: str) -> list[str]:
        """List the folders and list files of a split as they are written."""
        stated = self.get(split)
        return [str(name) for name in (stated if isinstance(stated, list) else [stated]) if name]

    def found_places(self, split: str) -> list[Path | None]:
        """Find the stated folders and list files of a split."""
        return [self.find(name) or self.find_by_tail(name) for name in self.stated_places(split)]

    def places(self, split: str) -> list[Path]:
        """List the folders and list files of a split. Raises `MissingSplitError` if there is none."""
        names, places = self.stated_places(split), self.found_places(split)
        for name, place in zip(names, places, strict=True):
            if place is None:
                said = f"no '{name}', which its line '{split}' states, nor the last parts of that path in {self.root}"
                raise MissingSplitError(self.path, split, [said])
        found = [place for place in places if place is not None]
        if found:
            return self._apart_from_evaluation(found) if split == "train" else found
        for folder in _image_folders(split):
            if (self.root / folder).is_dir():
                return [self.root / folder]
        others = {key for key in ("train", "val", "test") if self.get(key)}
        others |= {folder.name for folder in (self.root / "images").glob("*") if folder.is_dir()}
        raise MissingSplitError(self.path if self.values else self.root / "images" / split, split, others)

    def _apart_from_evaluation(self, places: Sequence[Path]) -> list[Path]:
        """Replace training folders around a folder of `val` or `test` by the other folders in them."""
        evaluated = [Path(os.path.abspath(path)) for key in ("val", "test") for path in self.found_places(key) if path]

        def apart(folder: Path) -> list[Path]:
            here = Path(os.path.abspath(folder))
            inner = next((path for path in evaluated if path.is_dir() and here in path.parents), None)
            if inner is None:
                return [folder]
            children = sorted(folder.iterdir())
            image = next((child for child in children if is_image_name(child)), None)
            if image is not None:
                text = f"has the training image {image.name} next to the folder of validation or test, {inner}"
                raise DataError(f"{self.path}: {folder} {text}; move the training images to a folder of their own")
            folders = (child for child in children if child.is_dir() and Path(os.path.abspath(child)) not in evaluated)
            return [place for child in folders for place in apart(child)]

        return [found for place in places for found in apart(place)]

    def find(self, name: str) -> Path | None:
        """Find a stated folder or file.

        The setting `path` is often a path on the machine that made the set. Some exporters write ../train/images for a
        folder next to data.yaml.
        """
        base = portable_path(str(self.get("path") or "."))
        name = portable_path(name)
        candidates = [self.root / base / name, self.root / name, self.root / without_parents(name)]
        return next((place for place in inside_first(candidates, self.root) if os.path.exists(place)), None)

    def find_by_tail(self, name: str) -> Path | None:
        """Find a stated folder or file of another machine by the last parts of its path, `path` included."""
        stated = "/".join([portable_path(str(self.get("path") or ".")), name.rstrip("/\\")])
        tails = (self.root / tail for tail in path_tails(stated) if tail.strip("./"))
        return next((place for place in tails if is_within(self.root, place) and os.path.exists(place)), None)

    def class_names(self, names_file: Path | None) -> dict[int, str]:
        """Return number in the label files -> class name: those of the settings, or else the lines of a file.

        Raises `DataError` if they cannot be read. Without any it is empty.
        """
        stated = self.get("names")
        numbered = dict(enumerate(stated)) if isinstance(stated, list) else stated
        if isinstance(numbered, dict) and numbered and all(str(number).isdecimal() for number in numbered):
            for number, name in numbered.items():
                if not isinstance(name, str) or not name.strip():
                    raise DataError(f"{self.path}: 'names' has {name!r} for class {number}, which is not a name")
            return self._distinct({int(number): numbered[number] for number in sorted(numbered, key=int)}, self.path)
        if stated is not None:
            what = f"'names' is {stated!r}, neither a list of names nor a mapping from their numbers"
            raise DataError(f"{self.path}: {what}")
        lines = read_lines(names_file, "class names") if names_file else []
        found = {number: line.strip() for number, line in enumerate(lines) if line.strip()}  # blank lines count
        return self._distinct(found, names_file)

    def _distinct(self, names: dict[int, str], path: Path | None) -> dict[int, str]:
        numbers: dict[str, int] = {}
        for number, name in names.items():
            if name in numbers:
                raise DataError(
                    f"{path}: the classes {numbers[name]} and {number} are both called {name!r}; rename one"
                )
            numbers[name] = number
        return names


def _image_folders(split: str) -> Iterator[str]:
    """Yield the folders below the root where the images of a split may be: `a/b` may be `a/images/b`."""
    parts = split.split("/")
    for name in IMAGES:
        yield from ("/".join([*parts[:place], name, *parts[place:]]) for place in range(len(parts) + 1))
    yield split


def read_settings(root: Path) -> Settings:
    """Read `data.yaml` or what stands for it. Raises `DataError` if `data.yaml` cannot be read."""
    for path in (root / name for name in SETTINGS_FILES):
        if path.is_file():
            return Settings(root, path, _read_yaml(path))
    for path in (path for pattern in OTHER_SETTINGS for path in sorted(root.glob(pattern))):
        try:
            values = _read_darknet(root, path) if path.suffix == ".data" else _read_yaml(path)
        except DataError:
            continue  # a file for something else
        if "names" in values and (values.get("train") or values.get("val")):
            return Settings(root, path, values)
    stated = {
        kind: next((f"{name}.txt" for name in names if _lists_images(root / f"{name}.txt")), "")
        for kind, names in SPLIT_NAMES.items()
    }
    if stated["train"]:
        return Settings(root, root / stated["train"], stated)
    return Settings(root, root / SETTINGS_FILES[0], {})


def _lists_images(path: Path) -> bool:
    """Tell whether a text file names images with labels; it may also be the labels of an image."""
    if not os.path.isfile(path):
        return False
    first = next((line.strip() for line in read_lines(path) if line.strip()), "")
    image = Settings(path.parent, path, {}).find(first) if is_image_name(Path(first)) else None
    image = image or (find_image(path.parent / "images", first, root=path.parent) if first else None)  # a name alone
    return image is not None and (os.path.isfile(image.with_suffix(".txt")) or (path.parent / "labels").is_dir())


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        # Everything is loaded as text: YAML would read the class names no and 010 as False and 8.
        values = yaml.load(read_text(path, "settings"), Loader=yaml.BaseLoader)  # noqa: S506 - makes no objects
    except yaml.YAMLError as error:
        raise DataError(f"{path}: this is not readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: the YAML is a {type(values).__name__}, not a mapping with 'names'")
    return values


def _read_darknet(root: Path, path: Path) -> dict[str, Any]:
    """Read the `key = value` lines of `obj.data` as the settings of `data.yaml`. Its paths start at another folder."""
    pairs = [line.partition("=") for line in read_lines(path) if "=" in line and not line.lstrip().startswith("#")]
    stated = {key.strip(): value.strip() for key, _, value in pairs}
    here = Settings(root, path, {})
    found = {
        key: str(here.find(value) or here.find_by_tail(value) or value)
        for key, value in stated.items()
        if key in ("train", "valid", "val", "test", "names")
    }
    names_file = Path(found.get("names", ""))
    names = read_lines(names_file) if os.path.isfile(names_file) else []
    return {
        **found,
        "val": found.get("valid", found.get("val", "")),
        "nc": stated.get("classes"),
        "names": {str(number): name.strip() for number, name in enumerate(names) if name.strip()} or None,
    }


def names_file_of(root: Path, folders: Sequence[Path]) -> Path | None:
    """Return the text file of class names in the root, or else in other folders."""
    files = (folder / name for folder in (root, *folders) for name in NAMES_FILES)
    return next((file for file in files if os.path.isfile(file)), None)
