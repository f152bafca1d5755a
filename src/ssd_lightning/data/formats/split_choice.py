"""Choose the splits of a folder for training, validation and test by their names and files."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import chain, islice
from pathlib import Path

from ssd_lightning.data.annotations import AnnotationFormat
from ssd_lightning.data.formats.survey import Files, folder_of
from ssd_lightning.data.formats.yolo import YOLO
from ssd_lightning.data.image_suffixes import IMAGE_SUFFIXES
from ssd_lightning.data.split_names import SPLIT_NAMES, kind_of, split_words
from ssd_lightning.errors import DataError

NO_IMAGES = (
    "there are no images of these labels; labels of YOLO belong next to their images, or into a folder 'labels' beside "
    "the folder 'images'"
)


def distinct_splits(
    annotation_format: AnnotationFormat, root: Path, names: Iterable[str]
) -> tuple[dict[str, frozenset[str]], dict[str, str], dict[str, str]]:
    """Return the files of each split; the earlier split of the same files, of those that have one; refusals by split.

    Raises `DataError` if the training split, or every one, cannot be read.
    """
    usual = [*SPLIT_NAMES["train"], *SPLIT_NAMES["val"], *SPLIT_NAMES["test"]]  # in ImageSets, cat_train is like train
    by_use = sorted(dict.fromkeys(names), key=lambda name: usual.index(name.lower()) if name.lower() in usual else 99)
    found: dict[str, frozenset[str]] = {}
    twins: dict[str, str] = {}
    errors: dict[str, DataError] = {}
    for name in by_use:
        try:
            files = frozenset(annotation_format.files(root, name))
        except DataError as error:
            if name.lower() in SPLIT_NAMES["train"]:
                raise
            errors[name] = error
            continue
        twin = next((other for other, of_other in found.items() if of_other == files), None)
        if twin is not None:
            twins[name] = twin
        elif files:
            found[name] = files
        else:
            is_yolo = isinstance(annotation_format, YOLO)
            errors[name] = DataError(f"{root / name}: {NO_IMAGES if is_yolo else 'its list is empty'}")
    if not found:
        raise next(iter(errors.values()), None) or DataError(f"{root}: there is no split")
    return found, twins, {name: str(error) for name, error in errors.items()}


def pick_splits_by_name(files: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Return the splits for training, validation and test, which share no files, from the files of each.

    There is no `train` if it is not clear which one is for training. A split that is called like validation or test
    never is.
    """
    left = list(files)
    if len(left) == 1 and kind_of(left[0]) in ("train", None):
        return {"train": left[0]}
    chosen: dict[str, str] = {}
    for kind, known in SPLIT_NAMES.items():
        exact = (name for word in known for name in left if name.lower() == word)
        similar = (name for word in known for name in left if word in split_words(name))  # instances_val.json, val2017
        name = next(chain(exact, similar), None)
        if name is not None:
            chosen[kind] = name
            left.remove(name)
    train = chosen.get("train") or (left[0] if len(left) == 1 else None)
    splits = {"train": train} if train else {}
    for kind in ("val", "test"):
        used = frozenset().union(*(files[name] for name in splits.values()))
        if kind in chosen and used.isdisjoint(files[chosen[kind]]):  # trainval contains val
            splits[kind] = chosen[kind]
    return splits


def images_without_split(files: Files, kinds: Collection[str | None]) -> dict[str, str]:
    """Describe the images in folders that are called like a split that is not among `kinds`: `train`, `val`, `test`."""
    counts = Counter(folder_of(path) for path in files.of(*IMAGE_SUFFIXES))
    found: dict[str, list[str]] = {}
    for folder, count in counts.items():
        kind = kind_of(folder)
        if kind is not None and kind not in kinds:
            found.setdefault(kind, []).append(f"{count} images in {folder}")
    return {kind: " and ".join(islice(described, 3)) for kind, described in found.items()}


def no_training_text(root: Path, names: Collection[str], *, images: str, refused: Iterable[str]) -> str:
    """Say that no split is for training, which there are, and where training images without annotations may be."""
    beside = f", and {images}, for which no annotations are found" if images else ""
    beside += "".join(f"; '{name}' cannot be read" for name in refused)
    text = f"{root}: it is not clear which split is for training. There is {', '.join(names)}{beside}"
    return f"{text}; data.train_split={next(iter(names))} trains on that split"
