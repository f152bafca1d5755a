"""The annotations of a split in flat arrays, which processes share, and the problems that were found in them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol, overload

import numpy as np

from ssd_lightning.data.annotation_checks import Problem
from ssd_lightning.data.columns import Columns, TextColumn, hash_ids
from ssd_lightning.errors import one_line


@dataclass(frozen=True, eq=False)
class ImageAnnotation:
    """One annotated image: a row of the table."""

    image_id: str
    image_path: Path
    size_px: tuple[int, int]
    """(height, width) of the image that the boxes refer to."""
    boxes_xyxy_px: np.ndarray
    """float32 `[N, 4]`, xyxy, 0-based, within [0, width] and [0, height]. The reader's settings say what is subtracted
    from the file's coordinates. Nothing is added for inclusive right and bottom edges."""
    labels: np.ndarray
    """int64 `[N]`, 1..C."""
    difficult: np.ndarray
    """bool `[N]`."""


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of a table, one per row, in the order of the images.

    Attributes:
        image: int64 `[T]`: index of the image, ascending.
        boxes_xyxy_px: float32 `[T, 4]`.
        labels: int64 `[T]`, 1..C.
        difficult: bool `[T]`.
        row: int64 `[T]`: index in the columns.
    """

    image: np.ndarray
    boxes_xyxy_px: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    row: np.ndarray


class AnnotationTable(Sequence[ImageAnnotation]):
    """Some images and objects of the columns. A selection copies no columns, so that processes share mapped ones.

    Args:
        columns: arrays of all images.
        rows: int64 `[n]`: the images, in order; None means all.
        keeps: bool `[T]`: the objects; None means all.
        label_map: int64 `[L + 1]`: new label of each label; None keeps them.

    Attributes:
        columns: arrays of all images.
        rows: int64 `[n]`: the images' indices in the columns.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        rows: np.ndarray | None = None,
        keeps: np.ndarray | None = None,
        label_map: np.ndarray | None = None,
    ) -> None:
        self.columns = columns
        self.rows: np.ndarray = np.arange(len(columns.image_ids)) if rows is None else rows
        self._keeps = np.ones(len(columns.labels), bool) if keeps is None else keeps
        self._label_map = np.arange(int(columns.labels.max(initial=0)) + 1) if label_map is None else label_map

    @classmethod
    def of(cls, annotations: Sequence[ImageAnnotation]) -> "AnnotationTable":
        """Store annotations in columns."""
        counts = [len(one.labels) for one in annotations]
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        empty = np.empty(0, np.int64)
        return cls(
            Columns(
                image_ids=TextColumn.of(one.image_id for one in annotations),
                image_paths=TextColumn.of(str(one.image_path) for one in annotations),
                files=TextColumn.of(str(one.image_path) for one in annotations),
                id_hashes=hash_ids(one.image_id for one in annotations),
                sizes_px=np.array([one.size_px for one in annotations], np.int32).reshape(-1, 2),
                starts=starts,
                boxes_xyxy_px=np.concatenate([np.empty((0, 4)), *(one.boxes_xyxy_px for one in annotations)]).astype(
                    np.float32
                ),
                labels=np.concatenate([empty, *(one.labels for one in annotations)]).astype(np.int32),
                difficult=np.concatenate([empty, *(one.difficult for one in annotations)]).astype(bool),
                overhangs=np.zeros(starts[-1], bool),
                items=np.arange(starts[-1]) - np.repeat(starts[:-1], counts) + 1,
            )
        )

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> ImageAnnotation: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageAnnotation]: ...
    def __getitem__(self, index: int | slice) -> ImageAnnotation | list[ImageAnnotation]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row, columns = int(self.rows[index]), self.columns
        objects = np.s_[columns.starts[row] : columns.starts[row + 1]]
        kept = self._keeps[objects]
        height, width = columns.sizes_px[row].tolist()
        return ImageAnnotation(
            image_id=columns.image_ids[row],
            image_path=Path(columns.image_paths[row]),
            size_px=(height, width),
            boxes_xyxy_px=columns.boxes_xyxy_px[objects][kept],
            labels=self._label_map[columns.labels[objects][kept]],
            difficult=columns.difficult[objects][kept],
        )

    @property
    def image_ids(self) -> Iterator[str]:
        """The images' ids, in order."""
        return (self.columns.image_ids[row] for row in self.rows.tolist())

    @property
    def image_paths(self) -> Iterator[str]:
        """The images' paths, in order."""
        return (self.columns.image_paths[row] for row in self.rows.tolist())

    @property
    def sizes_px(self) -> np.ndarray:
        """int32 `[n, 2]`: (height, width) of the images."""
        return self.columns.sizes_px[self.rows]

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 `[n]`: number of objects of each image."""
        return np.diff(np.concatenate([[0], np.cumsum(self._keeps)])[self.columns.starts])[self.rows]

    def objects(self) -> Objects:
        """Gather all objects."""
        columns, rows = self.columns, self.rows
        counts = np.diff(columns.starts)[rows]
        firsts = np.repeat(columns.starts[rows] - np.cumsum(counts) + counts, counts)
        row = firsts + np.arange(len(firsts))
        image = np.repeat(np.arange(len(rows)), counts)
        kept = self._keeps[row]
        row, image = row[kept], image[kept]
        return Objects(
            image=image,
            boxes_xyxy_px=columns.boxes_xyxy_px[row],
            labels=self._label_map[columns.labels[row]],
            difficult=columns.difficult[row],
            row=row,
        )

    def select(self, indices: np.ndarray) -> "AnnotationTable":
        """Return some images, by index or by a mask."""
        return AnnotationTable(self.columns, rows=self.rows[indices], keeps=self._keeps, label_map=self._label_map)


@dataclass(frozen=True, eq=False, kw_only=True)
class Annotations:
    """What a reader found in the files of one split."""

    columns: Columns
    """Labels count from 1 in the order of `names`."""
    names: Sequence[str]
    """Names of all labels."""
    num_declared: int
    """The first names are those of the classes. Objects of the others are of no class that the files declare."""
    is_listed: bool
    """The files list the classes in an order; otherwise they are sorted by name."""
    is_numbered: bool = False
    """The names are numbers from 0, since the files name no classes."""
    ids_are_shared: bool = False
    """The same id in two splits of a root is the same image."""
    item_format: str = "object {item} '{name}'"
    """How an object is described; may have {item}, {name} of its class and {image}."""
    problems: Sequence[Problem] = ()
    notes: Sequence[str] = ()
    """Warnings for the user."""
    sources: Sequence[str] = ()
    """Files and folders that were read. If one changes, so may the annotations."""
    roots: Sequence[str] = field(default_factory=list)


class AnnotationFormat(Protocol):
    """Reads the annotations of one format. Its settings are fields of a dataclass, so that `repr` names them all."""

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split of an existing folder."""
        ...

    def files(self, root: Path, split: str) -> Iterable[str]:
        """List the files of a split, to tell splits apart. Raises `DataError` if there is no such split."""
        ...


def shared_files(images: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a sentence for each image file that several images share.

    Args:
        images: path and id of each image.
    """
    ids: dict[str, list[str]] = {}
    for path, image_id in images:
        ids.setdefault(path, []).append(image_id)
    for path, names in ids.items():
        if len(names) > 1:
            shown = ", ".join(f"'{name}'" for name in dict.fromkeys(names))
            yield one_line(f"{path}: the split names it {len(names)} times (as {shown}); it is used for each of them")
