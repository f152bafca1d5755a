"""Choose the splits for training, validation and test if the settings leave this to the files."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)

AUTO = "auto"
"""Placeholder for a split's name: the first of the usual ones that exists."""
TRAINING_NAMES = ("trainval", "train", ".")
VALIDATION_NAMES = ("val", "valid", "validation")
TEST_NAMES = ("test", *VALIDATION_NAMES)

Arguments = Mapping[str, Any]
"""Arguments of a data set for one stage: `splits` and other settings of the stage."""
Sources = Callable[[Mapping[str, Any]], frozenset[str]]
"""Returns the files of a split, see `DatasetOpener.files`."""


def choose_splits(
    sources: Sources, *, train: Arguments, val: Arguments | None, test: Arguments | None
) -> dict[str, Arguments | None]:
    """Choose the splits of each stage.

    A split called `auto` becomes the first of the usual names that exists. A test split None means no test.
    Validation arguments without `part` mean a separate split, and nothing is held out of training. If that split is
    None, the first of `VALIDATION_NAMES` is used that shares nothing with training and test, provided there is a test
    split too. Without a test split, the images that `train` holds out are used.

    Args:
        sources: lists the files of a split.
        train: arguments of the training split.
        val: the same for validation.
        test: the same for the test.

    Returns:
        The arguments of `train`, `val` and `test`; None for a stage without images.
    """
    train = _with_names(train, TRAINING_NAMES, sources)
    if test is not None:
        test = None if None in _names(test) else _with_names(test, TEST_NAMES, sources, beside=train)
    if val is not None and "part" not in val and train.get("part") == "train":
        own = val["splits"] if None not in _names(val) else _own_validation(train, test, sources)
        held_out = {key: value for key, value in train.items() if key in ("part", "val_fraction")}
        if own is None:
            val = {**val, **held_out, "splits": train["splits"], "part": "val"}
        else:
            val = {**val, "splits": own}
            train = {key: value for key, value in train.items() if key not in held_out}
    if val is not None and val.get("part") == "val" and not val.get("val_fraction"):
        val = None  # nothing is held out
    return {"train": train, "val": val, "test": test}


def _names(arguments: Arguments) -> list[str | None]:
    return [split["split"] for split in arguments.get("splits", ())]


def _with_names(
    arguments: Arguments, usual: Sequence[str], sources: Sources, *, beside: Arguments | None = None
) -> Arguments:
    """Replace `auto` by names: of a split that shares nothing with others, else of any.

    If none exists the first name is used, so that the reader reports the available splits.
    """
    if AUTO not in _names(arguments):
        return arguments
    taken = _all_sources(beside, sources)
    splits = []
    for split in arguments["splits"]:
        named = {name: sources({**split, "split": name}) for name in (usual if split["split"] == AUTO else ())}
        there = [name for name, files in named.items() if files] if named else [split["split"]]
        apart = (name for name in there if not taken & named.get(name, frozenset()))
        splits.append({**split, "split": next(apart, (there or usual)[0])})
    return {**arguments, "splits": splits}


def _own_validation(train: Arguments, test: Arguments | None, sources: Sources) -> list[dict[str, str]] | None:
    """Find the validation split of a root that has all three splits."""
    tested = _all_sources(test, sources)
    if not tested:
        return None
    taken = tested | _all_sources(train, sources)
    for place in train["splits"]:
        for name in VALIDATION_NAMES:
            own = {**place, "split": name}
            found = sources(own)
            if found and not found & taken:
                log.info("%s: validation on the split '%s'; nothing is held out of training", place["root"], name)
                return [own]
    return None


def _all_sources(arguments: Arguments | None, sources: Sources) -> frozenset[str]:
    return frozenset().union(*map(sources, [] if arguments is None else arguments["splits"]))
