"""Which splits are trained on, validated on and tested on, where a data set's settings leave that to its files."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ssd_lightning.data.splits import absolute_roots, check_root
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

AUTO = "auto"
"""In place of a split's name: the first of the usual ones that exists."""
TRAINING_NAMES = ("trainval", "train", ".")
VALIDATION_NAMES = ("val", "valid", "validation")
TEST_NAMES = ("test", *VALIDATION_NAMES)

Arguments = Mapping[str, Any]
"""Of a data set, for one stage: `splits`, and what else the stage sets."""
Sources = Callable[[Path, str], frozenset[str]]
"""Gives what a split is made of, see `split_sources` of the readers; nothing where there is no such split."""


def choose_splits(
    dataset: Callable[..., Any], *, train: Arguments, val: Arguments | None, test: Arguments | None
) -> dict[str, Arguments | None]:
    """Settle which splits the stages have.

    A split called `auto` becomes the first of the usual names that exists. A test split called None is none.
    Validation whose arguments have no `part` has a split of its own, and nothing is held out of training. Where that
    split is None, it is the first of `VALIDATION_NAMES` that shares nothing with training and test, provided there is a
    test split as well; without one, the images that `train` holds out are validated on.

    Args:
        dataset: class of a reader, or a `partial` of it.
        train: what the training split adds to its arguments.
        val: the same for validation.
        test: the same for the test.

    Returns:
        The arguments of `train`, `val` and `test`; None for a stage without images.
    """
    sources: Sources = partial(_sources, dataset)
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
    """Put names in place of `auto`: of a split that shares nothing with others, else of any.

    Where none exists it is the first, for the reader to say what there is.
    """
    if AUTO not in _names(arguments):
        return arguments
    taken = _all_sources(beside, sources)
    splits = []
    for root, split in zip(absolute_roots(arguments["splits"]), arguments["splits"], strict=True):
        there = [name for name in usual if sources(root, name)] if split["split"] == AUTO else [split["split"]]
        apart = (name for name in there if not taken & sources(root, name))
        splits.append({**split, "split": next(apart, (there or usual)[0])})
    return {**arguments, "splits": splits}


def _own_validation(train: Arguments, test: Arguments | None, sources: Sources) -> list[dict[str, str]] | None:
    """Find the validation split of a root that has all three."""
    tested = _all_sources(test, sources)
    if not tested:
        return None
    taken = tested | _all_sources(train, sources)
    for place in train["splits"]:
        (root,) = absolute_roots([place])
        for name in VALIDATION_NAMES:
            found = sources(root, name)
            if found and not found & taken:
                log.info("%s: validation on the split '%s'; nothing is held out of training", root, name)
                return [{**place, "split": name}]
    return None


def _all_sources(arguments: Arguments | None, sources: Sources) -> frozenset[str]:
    splits = [] if arguments is None else arguments["splits"]
    roots = absolute_roots(splits)
    return frozenset().union(*(sources(root, split["split"]) for root, split in zip(roots, splits, strict=True)))


def _sources(dataset: Callable[..., Any], root: Path, split: str) -> frozenset[str]:
    reader = dataset.func if isinstance(dataset, partial) else dataset
    if not hasattr(reader, "split_sources"):
        return frozenset()
    try:
        check_root(root)
        return frozenset(reader.split_sources(root, split))
    except (DataError, OSError):
        return frozenset()
