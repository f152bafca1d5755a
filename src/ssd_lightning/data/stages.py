"""Choose the splits for training, validation and test if the settings leave this to the files."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from ssd_lightning.data.choosing import HeldOut
from ssd_lightning.data.formats.files import check_root
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.data.split_annotations import absolute_roots
from ssd_lightning.data.split_names import SPLIT_NAMES
from ssd_lightning.errors import ConfigurationError, DataError

log = logging.getLogger(__name__)

Stage = Literal["train", "val", "test"]
STAGES: tuple[Stage, ...] = get_args(Stage)
AUTO = "auto"
"""Placeholder for a split's name: the first of the usual ones that exists."""
TRAINING_NAMES = sorted(SPLIT_NAMES["train"], key=lambda name: name != "trainval")  # which has the images of train too
SHARES = ("val_fraction", "test_fraction", "fold", "num_folds")
"""Settings of `HeldOut`."""
KEYS_OF_SET = ("root", "split", "format")
WITHOUT_SPLIT = {
    "test": ": split=val scores the validation split, data.test_split={name} scores all images of '{name}' (for images "
    "that the training did not use), and data.test_fraction=0.1 in the training holds a tenth out",
    "val": ": data.val_fraction=0.1 in the training holds a tenth of the training split out",
}
"""Advice for a user whose data have no such split; `name` is that of the training split."""

Arguments = Mapping[str, Any]
"""Arguments of a data set for one stage: `splits` and other settings of the stage."""
Sources = Callable[[Mapping[str, Any]], frozenset[str]]
"""Returns the files of a split, see `DatasetOpener.files`."""


def plan_stages(
    sources: Sources, *, train: Arguments, val: Arguments | None, test: Arguments | None
) -> dict[str, Arguments | None]:
    """Choose the splits of each stage.

    A split called `auto` becomes the first usual one that exists: of `TRAINING_NAMES` for training, then for the test,
    then for validation. The latter two must not share images with the stages before. Without validation splits, or with
    folds, `train` holds out what its settings of `HeldOut` say. Arguments with a `part` stay as they are.

    Args:
        sources: lists the files of a split.
        train: arguments of the training split; with `sets`, a list of places, it has several.
        val: the same for validation; a split None means none of its own.
        test: the same for the test; a split None means no test.

    Returns:
        The arguments of each stage; None for a stage without images.

    Raises:
        ConfigurationError: an entry of `sets` has another key than those of `KEYS_OF_SET` or no text as its root, or a
            share is invalid.
    """
    if "splits" not in train or (val is not None and "part" in val):
        is_empty = val is not None and val.get("part") == "val" and HeldOut(**_shares(val)).is_empty
        return {"train": train, "val": None if is_empty else val, "test": test}
    train = _with_sets("train", train)
    shares = _shares(train)
    HeldOut(**shares)  # reports wrong shares, also those that the splits of the files replace
    splits = _named(train["splits"], TRAINING_NAMES, sources)
    if not splits:  # the reader reports the splits that there are
        splits = [{**split, "split": TRAINING_NAMES[0]} for split in train["splits"]]
    own_test = _own_splits("test", test, train=splits, others=(), sources=sources)
    own_val = [] if "fold" in shares else _own_splits("val", val, train=splits, others=own_test, sources=sources)
    for key, own in (("val_fraction", own_val), ("test_fraction", own_test)):
        if own and key in shares:
            names = " and ".join(f"'{split['split']}' of {split['root']}" for split in own)
            log.info("data.%s=%s holds nothing out, since there is the split %s", key, shares.pop(key), names)
    held_out = {stage: {"splits": splits, "part": stage, **shares} for stage in STAGES}
    new_val = {"splits": own_val} if own_val else held_out["val"]
    new_test = {"splits": own_test} if own_test else held_out["test"]
    has_val = val is not None and (bool(own_val) or not HeldOut(**shares).is_empty)
    has_test = bool(own_test) or "test_fraction" in shares
    return {
        "train": {**_others(train), **(held_out["train"] if shares else {"splits": splits})},
        "val": {**_others(val or {}), **new_val} if has_val else None,
        "test": {**_others(test or {}), **new_test} if has_test else None,
    }


def _others(arguments: Arguments) -> Arguments:
    """Return the arguments that do not choose images."""
    return {key: value for key, value in arguments.items() if key not in ("sets", "splits", "part", *SHARES)}


def _with_sets(stage: str, arguments: Arguments) -> Arguments:
    """Replace the splits by `sets`, if there are any: places below the first split's root."""
    sets, rest = arguments.get("sets"), {key: value for key, value in arguments.items() if key != "sets"}
    if not sets:
        return rest
    sets = sets if isinstance(sets, list | tuple) else [sets]
    for number, place in enumerate(sets, start=1):
        has = f"data.{stage}: entry {number}, {place}, has"
        unknown = [key for key in place if key not in KEYS_OF_SET] if isinstance(place, Mapping) else [place]
        if unknown:
            raise ConfigurationError(f"{has} '{unknown[0]}', which is none of the keys {', '.join(KEYS_OF_SET)}")
        if not isinstance(place.get("root", "."), str):
            raise ConfigurationError(f"{has} the root {place['root']!r}; it must be text, a name of digits in quotes")
    root = Path(rest["splits"][0]["root"])
    return {**rest, "splits": [{"split": AUTO, **place, "root": str(root / place.get("root", "."))} for place in sets]}


def _shares(arguments: Arguments) -> dict[str, Any]:
    """Return the settings of `HeldOut` that hold something out."""
    given = {key: arguments.get(key) for key in SHARES}
    return {key: value for key, value in given.items() if value or (key == "fold" and value == 0)}


def _named(
    splits: Sequence[Mapping[str, Any]],
    usual: Sequence[str],
    sources: Sources,
    *,
    apart_from: Sequence[Mapping[str, Any]] = (),
) -> list[Mapping[str, Any]]:
    """Replace `auto` by the first usual name of a split that shares no file with others; empty if there is none."""
    taken, names = frozenset().union(*map(sources, apart_from)), {split["split"] for split in apart_from}
    chosen: list[Mapping[str, Any]] = []
    for split in splits:
        if split["split"] != AUTO:
            chosen.append(split)
            continue
        candidates = [{**split, "split": name} for name in usual]
        shared = [(candidate, files & taken) for candidate in candidates if (files := sources(candidate))]
        chosen += [candidate for candidate, files in shared if not files][:1]
        for candidate, files in shared:
            if files and candidate["split"] not in names:
                text = f"{len(files)} files of the split '{candidate['split']}' are in another split too, so it is"
                log.warning("%s: %s not used by itself", candidate["root"], text)
    return chosen


def _own_splits(
    stage: str,
    arguments: Arguments | None,
    *,
    train: Sequence[Mapping[str, Any]],
    others: Sequence[Mapping[str, Any]],
    sources: Sources,
) -> list[Mapping[str, Any]]:
    """Return the stated splits of validation or test, or those that are found apart from `train` and `others`."""
    if arguments is None:
        return []
    places = _with_sets(stage, arguments)["splits"]
    names = [split["split"] for split in places]
    if None in names:
        return []
    if names == [AUTO] and not arguments.get("sets"):  # without a place of its own, it is one of the training sets
        places = list({split["root"]: {**split, "split": AUTO} for split in train}.values())
    return _named(places, SPLIT_NAMES[stage], sources, apart_from=[*train, *others])


class Stages:
    """The splits of training, validation and test, which are chosen when they are first asked for.

    `given` has the arguments of `train`, `val` and `test` for `plan_stages`.
    """

    def __init__(self, opener: DatasetOpener, given: Mapping[str, Any]) -> None:
        self._opener = opener
        self._given = given

    @cached_property
    def _chosen(self) -> dict[str, Arguments | None]:
        chosen = plan_stages(self._opener.files, **self._given)  # not earlier: the files may be downloaded before
        for place in (chosen["test"] or {}).get("splits", ()):
            if self._opener.is_unlabelled(place):
                text = "has no labels, so that it cannot be scored; training does not need it"
                log.warning("%s: the test split '%s' %s", place["root"], place["split"], text)
        return chosen

    def has(self, stage: Stage) -> bool:
        """Whether a stage has a split."""
        return self._chosen[stage] is not None

    def arguments(self, stage: Stage) -> dict[str, Any]:
        """Return the arguments of a split's data set. Raises `DataError` if there is none, or no training folder."""
        arguments = self._chosen[stage]
        if arguments is None:
            places = (self._chosen["train"] or {}).get("splits", ())
            for root in absolute_roots(places):
                check_root(root)
            advice = WITHOUT_SPLIT.get(stage, "").format(name=next((place["split"] for place in places), "NAME"))
            raise DataError(f"this data set has no {stage} split{advice}")
        return dict(arguments)

    @property
    def split_names(self) -> dict[str, list[str]]:
        """Names of the splits of each stage. Held-out validation has the names of the training splits."""
        chosen = self._chosen.items()
        return {stage: [place["split"] for place in of.get("splits", ())] for stage, of in chosen if of is not None}
