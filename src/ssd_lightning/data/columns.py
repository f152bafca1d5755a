"""The flat arrays of annotations, which processes map into memory."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, overload

import numpy as np


class TextColumn(Sequence[str]):
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

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.block[self.ends[index] : self.ends[index + 1]].tobytes().decode(errors="surrogateescape")


@dataclass(frozen=True, eq=False, kw_only=True)
class Columns:
    """The arrays of a table; T objects in N images."""

    image_ids: TextColumn
    image_paths: TextColumn
    files: TextColumn
    """Annotation file of each image, or one for all."""
    id_hashes: np.ndarray
    """uint32 `[N]`, CRC of the image's id; decides which images are held out."""
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
                np.save(folder / f"{name}.npy", value.block)
                np.save(folder / f"{name}_ends.npy", value.ends)
            else:
                np.save(folder / f"{name}.npy", value)

    @classmethod
    def load(cls, folder: Path) -> "Columns":
        """Map the arrays of a folder.

        Raises:
            OSError, ValueError: a file is missing or damaged.
        """
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
