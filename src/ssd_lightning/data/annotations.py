"""The annotations of a split in flat arrays, which processes map into memory and share."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from ssd_lightning.errors import DataError


class TextColumn:
    """Texts in one block of bytes, without a Python object for each.

    Args:
        block: uint8 `[bytes]`, the texts one after the other in UTF-8.
        ends: int64 `[N + 1]`, where each text starts and the last one ends.
    """

    def __init__(self, block: np.ndarray, ends: np.ndarray) -> None:
        self.block = block
        self.ends = ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> "TextColumn":
        """Store some texts. File names may have bytes that are not UTF-8."""
        encoded = [text.encode(errors="surrogateescape") for text in texts]
        ends = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=ends[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> str:
        return self.block[self.ends[index] : self.ends[index + 1]].tobytes().decode(errors="surrogateescape")


@dataclass(frozen=True, eq=False, kw_only=True)
class Columns:
    """The arrays of a table; T objects in N images."""

    image_ids: TextColumn
    image_paths: TextColumn
    files: TextColumn
    """Annotation file of each image, or one for all."""
    id_hashes: np.ndarray
    """uint32 `[N]`, CRC of the image's id in its own set; decides which images are held out."""
    sizes_px: np.ndarray
    """int32 `[N, 2]`, (height, width)."""
    starts: np.ndarray
    """int64 `[N + 1]`: the first object of each image, and T."""
    boxes_xyxy_px: np.ndarray
    """float32 `[T, 4]`"""
    labels: np.ndarray
    """int32 `[T]`, from 1."""
    difficult: np.ndarray
    """bool `[T]`"""
    overhangs: np.ndarray
    """bool `[T]`: the annotated box reaches out of the image by more than a pixel, and was clipped."""
    items: np.ndarray
    """int64 `[T]`: number of the object in its file: line, id or position."""
    folder: Path | None = None
    """Where the arrays are mapped from, so that another process maps them too; None if they are in memory."""

    def file_of(self, image: int) -> str:
        """Return the annotation file of an image."""
        return self.files[image if len(self.files) > 1 else 0]

    def save(self, folder: Path) -> None:
        """Write the arrays to an empty folder."""
        for name in COLUMN_NAMES:
            value = getattr(self, name)
            if isinstance(value, TextColumn):
                np.save(folder / f"{name}_ends.npy", value.ends)
                value = value.block
            np.save(folder / f"{name}.npy", value)

    @classmethod
    def load(cls, folder: Path) -> "Columns":
        """Map the arrays of a folder. Raises `OSError` or `ValueError` if a file is missing or damaged."""
        columns: dict[str, Any] = {}
        for name in COLUMN_NAMES:
            columns[name] = _mapped(folder / f"{name}.npy")
            if (folder / f"{name}_ends.npy").exists():
                columns[name] = TextColumn(columns[name], _mapped(folder / f"{name}_ends.npy"))
        return cls(**columns, folder=folder)

    def __reduce__(self) -> Any:
        return (Columns.load, (self.folder,)) if self.folder else super().__reduce__()


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r").view(np.ndarray)  # a plain view: indexing `np.memmap` is slow


COLUMN_NAMES = tuple(column.name for column in fields(Columns) if column.name != "folder")


def hash_ids(image_ids: Iterable[str]) -> np.ndarray:
    """Hash the ids of images: uint32 `[N]`."""
    return np.fromiter((zlib.crc32(text.encode(errors="surrogateescape")) for text in image_ids), np.uint32)


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
    """The objects of a table, one per row, in the order of the images; arrays as in `Columns`."""

    image: np.ndarray
    """int64 `[T]`: index of the image, ascending."""
    boxes_xyxy_px: np.ndarray
    labels: np.ndarray
    """int64 `[T]`, 1..C."""
    difficult: np.ndarray
    row: np.ndarray
    """int64 `[T]`: index in the columns."""


class AnnotationTable(Sequence[ImageAnnotation]):
    """Some images and objects of the columns. A selection copies no columns, so that processes share mapped ones.

    Args:
        columns: arrays of all images.
        rows: int64 `[n]`: the images, in order; None means all.
        keeps: bool `[T]`: the objects; None means all.
        label_map: int64 `[L + 1]`: new label of each label; None keeps them.
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
        """Store annotations in columns.

        Raises:
            DataError: an image has different numbers of boxes, labels and flags.
        """
        for one in annotations:
            if np.shape(one.boxes_xyxy_px) != (len(one.labels), 4) or len(one.difficult) != len(one.labels):
                shapes = [list(np.shape(column)) for column in (one.boxes_xyxy_px, one.labels, one.difficult)]
                text = f"boxes, labels and flags have the shapes {shapes}; they must be [N, 4], [N] and [N]"
                raise DataError(f"image '{one.image_id}': {text}")
        counts = [len(one.labels) for one in annotations]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        boxes = [one.boxes_xyxy_px for one in annotations]
        return cls(
            Columns(
                image_ids=TextColumn.of(one.image_id for one in annotations),
                image_paths=TextColumn.of(str(one.image_path) for one in annotations),
                files=TextColumn.of(str(one.image_path) for one in annotations),
                id_hashes=hash_ids(one.image_id for one in annotations),
                sizes_px=np.array([one.size_px for one in annotations], np.int32).reshape(-1, 2),
                starts=starts,
                boxes_xyxy_px=np.concatenate([np.empty((0, 4)), *boxes]).astype(np.float32),
                labels=np.concatenate([[], *(one.labels for one in annotations)]).astype(np.int32),
                difficult=np.concatenate([[], *(one.difficult for one in annotations)]).astype(bool),
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
        image = np.repeat(np.arange(len(rows)), counts)
        row = (columns.starts[rows] - np.cumsum(counts) + counts)[image] + np.arange(len(image))
        kept = self._keeps[row]
        row = row[kept]
        return Objects(
            image=image[kept],
            boxes_xyxy_px=columns.boxes_xyxy_px[row],
            labels=self._label_map[columns.labels[row]],
            difficult=columns.difficult[row],
            row=row,
        )

    def select(self, indices: np.ndarray) -> "AnnotationTable":
        """Return some images, by index or by a mask."""
        return AnnotationTable(self.columns, rows=self.rows[indices], keeps=self._keeps, label_map=self._label_map)
