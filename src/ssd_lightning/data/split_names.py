"""What splits are called, and what the names of folders and files say of them."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ssd_lightning.errors import listed

SPLIT_NAMES = {
    "val": ("val", "valid", "validation", "validate", "val2017", "eval", "evaluation", "dev"),
    "test": ("test", "testing", "test2017"),
    "train": ("train", "training", "train2017", "trainval", "."),
}
"""Usual names of the splits for validation, test and training; the first that a folder has is used."""
KIND_OF_WORD = {name: kind for kind, names in SPLIT_NAMES.items() for name in names if name != "."}
"""What folders, files and columns call splits, in lower case, and what is meant: `train`, `val` or `test`."""
SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test"}
"""What messages call the images of a split."""


def note_merged(folder: Path, names: Iterable[str], *, split: str) -> list[str]:
    """Name the folders of a split's files whose names say that they are for validation or test.

    `names` are the files below the folder of the split. Folders in it that say the same as the split are not named.
    """
    parents = {parent for name in names for parent in PurePosixPath(name).parents}
    merged = sorted(str(path) for path in parents if kind_of(path.name) in {"val", "test"} - {kind_of(split)})
    if not merged:
        return []
    text = "of one split, though their names say validation or test; data.train_split=, val_split= and test_split="
    return [f"{folder}: the folders {listed(merged, 5)} are read as part {text} state other folders"]


def split_words(name: str) -> list[str]:
    """List the words of a folder's name in lower case, without numbers."""
    return re.findall(r"[^\W\d_]+", name.lower())


def kind_of(path: str) -> str | None:
    """Tell whether a path says `train`, `val` or `test`, by its last part that does; None if it says nothing."""
    for part in reversed(PurePosixPath(path).parts):
        kinds = [KIND_OF_WORD[word] for word in split_words(part) if word in KIND_OF_WORD]
        if kinds:
            return "train" if "train" in kinds else kinds[0]
    return None


def other_splits(split: str) -> tuple[str, ...]:
    """List the names of subfolders that belong to other splits: `train/train` and `train_zip/train` are one split."""
    return tuple(name for name, kind in KIND_OF_WORD.items() if kind != kind_of(split))


def without_split(path: str) -> str:
    """Return a path without the words that say of which split it is: equal for the files of all splits of a set."""
    return re.sub(r"[^\W\d_]+", lambda word: "*" if word[0].lower() in KIND_OF_WORD else word[0], path)
