"""Warn of folders of validation or test images that are read as part of another split."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

EVALUATION_WORDS = {"val", "valid", "validation", "eval", "evaluation", "dev", "test", "testing"}


def note_merged(folder: Path, names: Iterable[str]) -> list[str]:
    """Name the folders of a split's files whose names say that they are for validation or test.

    Args:
        folder: the folder of the split.
        names: paths of its files below it.
    """
    parents = {parent for name in names for parent in PurePosixPath(name).parents}
    merged = sorted(str(path) for path in parents if EVALUATION_WORDS.intersection(split_words(path.name)))
    if not merged:
        return []
    shown = ", ".join(merged[:5]) + (f" and {len(merged) - 5} more" if len(merged) > 5 else "")
    text = "of one split, though their names say validation or test; data.train_split=, val_split= and test_split="
    return [f"{folder}: the folders {shown} are read as part {text} state other folders"]


def split_words(name: str) -> list[str]:
    """List the words of a folder's name in lower case, without numbers."""
    return re.findall(r"[^\W\d_]+", name.lower())
