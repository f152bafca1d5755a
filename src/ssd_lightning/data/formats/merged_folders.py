"""What the names of folders and files say of splits; warn of evaluation images that are read as part of another one."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ssd_lightning.data.formats.files import SPLIT_FOLDERS
from ssd_lightning.errors import listed

SPLIT_NAMES = {
    "val": ("val", "valid", "validation", "eval", "evaluation", "dev"),
    "test": ("test", "testing"),
    "train": ("train", "training", "trainval", "."),
}
"""What splits are called; the first that a folder has is used."""
EVALUATION_WORDS = {*SPLIT_NAMES["val"], *SPLIT_NAMES["test"]}
KIND_OF_WORD = {word: kind for kind, words in SPLIT_NAMES.items() for word in words}
SPLIT_WORDS = {word: kind for word, kind in KIND_OF_WORD.items() if word not in ("trainval", ".")} | {"validate": "val"}
"""What columns and paths call splits, in lower case, and what is meant: `train`, `val` or `test`."""


def note_merged(folder: Path, names: Iterable[str], *, split: str) -> list[str]:
    """Name the folders of a split's files whose names say that they are for validation or test.

    Args:
        folder: the folder of the split.
        names: paths of its files below it.
        split: the split; folders inside that say the same are not named.
    """
    parents = {parent for name in names for parent in PurePosixPath(name).parents}
    merged = sorted(
        str(path)
        for path in parents
        if EVALUATION_WORDS.intersection(split_words(path.name)) and kind_of(path.name) != kind_of(split)
    )
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
    return tuple(name for name in SPLIT_FOLDERS if kind_of(split) is None or kind_of(name) != kind_of(split))


def without_split(path: str) -> str:
    """Return a path without the words that say of which split it is: equal for the files of all splits of a set."""
    return re.sub(r"[^\W\d_]+", lambda word: "*" if word[0].lower() in KIND_OF_WORD else word[0], path)
