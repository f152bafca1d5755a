"""Collect what the files of a split say, check it all at once, and put it into columns."""

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from ssd_lightning.data.annotation_checks import (
    BOX_PROBLEMS,
    RANGE_TOLERANCE_PX,
    BoxFormat,
    Unit,
    box_text,
    check_boxes,
    corners_px,
)
from ssd_lightning.data.annotations import Annotations, Columns, Problem, ProblemKind, TextColumn, hash_ids
from ssd_lightning.data.dataset import shared_files, shortened
from ssd_lightning.data.formats.files import FileError, is_within
from ssd_lightning.data.images import image_size_px
from ssd_lightning.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

NUM_THREADS = 4
READ_AT_ONCE = 1024
"""Files that threads read before the results are used: bounds the memory."""
FILES_OF_A_TASK = 64
"""With a task for each file, the threads wait for each other twice as long as they read."""
CHECKED_AT_ONCE = 1 << 20
"""Objects whose boxes are checked together: bounds the memory."""


class TableBuilder:
    """Collects images and objects.

    Args:
        class_names: classes that the files declare, in their order; objects may have others.
        is_listed: False: every name that occurs is a class; they are sorted at the end.
        is_numbered: see `Annotations`.
        item_format: see `Annotations`.
        box_format: meaning of the four numbers of a box.
        unit: unit of these numbers.
        first_pixel: number of the first pixel in the files.

    Attributes:
        notes: warnings for the user.
        sources: files and folders that were read.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str] = (),
        is_listed: bool = False,
        is_numbered: bool = False,
        item_format: str = "object {item} '{name}'",
        box_format: BoxFormat = "xyxy",
        unit: Unit = "pixels",
        first_pixel: int = 0,
    ) -> None:
        self._labels = {name: label for label, name in enumerate(class_names, start=1)}
        self._num_declared = len(class_names)
        self._is_listed = is_listed
        self._is_numbered = is_numbered
        self._item_format = item_format
        self._box_format: BoxFormat = box_format
        self._unit: Unit = unit
        self._first_pixel = first_pixel
        self._ids: list[str] = []
        self._paths: list[str] = []
        self._files: list[str] = []
        self._sizes_px: list[tuple[int, int]] = []
        self._image = array("q")
        self._label = array("i")
        self._item = array("q")
        self._difficult = array("b")
        self._numbers = array("d")
        self._problems: list[tuple[int, int, Problem]] = []
        self.notes: list[str] = []
        self.sources: list[str] = []

    def label(self, name: str) -> int:
        """Return the label of a class name; a new one gets the next."""
        return self._labels.setdefault(name, len(self._labels) + 1)

    def add_image(self, *, image_id: str, path: str | Path, size_px: tuple[int, int] | None, file: str | Path) -> int:
        """Add an image, and return its index.

        Args:
            image_id: id of the image, unique in the split.
            path: its file.
            size_px: (height, width) in the annotation; None if it is not there: then the image is asked.
            file: the annotation file.
        """
        self._ids.append(image_id)
        self._paths.append(str(path))
        self._files.append(str(file))
        self._sizes_px.append(size_px or (0, 0))
        return len(self._ids) - 1

    def add_object(
        self, image: int, *, name: str, numbers: Iterable[float], item: int, difficult: bool = False
    ) -> None:
        """Add an object of an image: its class, and the four finite numbers of its box as in the file."""
        self._image.append(image)
        self._label.append(self.label(name))
        self._item.append(item)
        self._difficult.append(difficult)
        self._numbers.extend(numbers)

    def add_objects(
        self, images: np.ndarray, *, labels: np.ndarray, numbers: np.ndarray, items: np.ndarray, difficult: np.ndarray
    ) -> None:
        """Add objects of any images; labels are those of `label`."""
        self._image.frombytes(images.astype(np.int64).tobytes())
        self._label.frombytes(labels.astype(np.int32).tobytes())
        self._item.frombytes(items.astype(np.int64).tobytes())
        self._difficult.frombytes(difficult.astype(np.int8).tobytes())
        self._numbers.frombytes(numbers.astype(np.float64).tobytes())

    def fail_object(
        self,
        image: int,
        *,
        name: str,
        item: int | str,
        text: str,
        difficult: bool = False,
        kind: ProblemKind = "annotation",
        is_clipped: bool = False,
        reach_px: tuple[float, float] | None = None,
    ) -> None:
        """Report an object that cannot be read."""
        path = Path(self._paths[image])
        problem = Problem(
            file=self._files[image],
            item=self._item_format.format(item=item, name=name, image=path.name),
            kind=kind,
            text=text,
            image_id=self._ids[image],
            name=name,
            label=self._labels.get(name, 0),
            difficult=difficult,
            is_clipped=is_clipped,
            reach_px=reach_px,
        )
        self._problems.append((image, item if isinstance(item, int) else 0, problem))

    def fail_image(self, error: FileError, *, image_id: str) -> None:
        """Report an image that cannot be used instead of adding it."""
        problem = Problem(file=error.file, kind=error.kind, text=error.text, image_id=image_id)
        self._problems.append((len(self._ids), -1, problem))

    def fail_file(self, file: str | Path, text: str, *, kind: ProblemKind = "annotation") -> None:
        """Report a part of a file that belongs to no image."""
        self._problems.append((-1, 0, Problem(file=str(file), kind=kind, text=text)))

    def finish(self, *, roots: Sequence[Path], ids_are_shared: bool = False) -> Annotations:
        """Check all boxes and return what can be used.

        Args:
            roots: folder of the data set.
            ids_are_shared: see `Annotations`.
        """
        sizes_px, is_usable = self._measure()
        image = np.frombuffer(self._image, np.int64)
        order = np.argsort(image, kind="stable") if (np.diff(image) < 0).any() else np.arange(len(image))
        boxes, kinds, overhangs = self._check(sizes_px, order)
        image = image[order]
        is_usable[self._find_turned(image, kinds, order, sizes_px)] = False
        names = list(self._labels)
        for position in np.flatnonzero((kinds > 0) & is_usable[image]).tolist():
            row, kind = int(order[position]), BOX_PROBLEMS[kinds[position]]
            name, size_px = names[self._label[row] - 1], sizes_px[image[position]]
            self._fail_box(row, name, kind, size_px, is_clipped=bool(overhangs[position]))
        kept = is_usable[image] & ((kinds == 0) | overhangs)
        counts = np.bincount(image[kept], minlength=len(self._ids))[is_usable]
        names, label_map = self._sorted_labels()
        usable = np.flatnonzero(is_usable).tolist()
        self.notes += self._outside(usable, roots) + self._shared(usable)
        ids = [self._ids[index] for index in usable]
        files = [self._files[index] for index in usable]
        return Annotations(
            columns=Columns(
                image_ids=TextColumn.of(ids),
                image_paths=TextColumn.of(self._paths[index] for index in usable),
                files=TextColumn.of(files[:1] if len(set(files)) == 1 else files),
                id_hashes=hash_ids(ids),
                sizes_px=sizes_px[is_usable],
                starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
                boxes_xyxy_px=boxes[kept],
                labels=label_map[np.frombuffer(self._label, np.int32)[order][kept]],
                difficult=np.frombuffer(self._difficult, np.int8).astype(bool)[order][kept],
                overhangs=overhangs[kept],
                items=np.frombuffer(self._item, np.int64)[order][kept],
            ),
            names=names,
            num_declared=self._num_declared if self._is_listed else len(names),
            is_listed=self._is_listed,
            is_numbered=self._is_numbered,
            ids_are_shared=ids_are_shared,
            item_format=self._item_format,
            problems=self._sorted_problems(label_map, is_usable),
            notes=self.notes,
            sources=[*dict.fromkeys(self.sources)],
            roots=[str(root) for root in roots],
        )

    def _outside(self, usable: Sequence[int], roots: Sequence[Path]) -> list[str]:
        folders = {path.rpartition("/")[0] for path in self._paths}
        far = {folder for folder in folders if not any(is_within(root, Path(folder)) for root in roots)}
        paths = (self._paths[index] for index in usable if far)
        outside = [path for path in paths if path.rpartition("/")[0] in far]
        if not outside:
            return []
        where, first = " and ".join(map(str, roots)), os.path.abspath(outside[0])
        return [f"{len(outside)} of the {len(usable)} images lie outside of {where}; the first: {first}"]

    def _shared(self, usable: Sequence[int]) -> list[str]:
        if len(set(self._paths)) == len(self._paths):
            return []
        shared = list(shared_files((self._paths[index], self._ids[index]) for index in usable))
        return [f"{len(shared)} image files have more than one entry:\n  {shortened(shared)}"] if shared else []

    def _measure(self) -> tuple[np.ndarray, np.ndarray]:
        """Ask the images for sizes that no annotation states."""
        sizes_px = np.array(self._sizes_px, np.int32).reshape(-1, 2)
        is_usable = np.ones(len(sizes_px), bool)
        unknown = np.flatnonzero((sizes_px <= 0).any(1)).tolist()
        with ThreadPoolExecutor() as pool:
            for index, size_px in zip(unknown, pool.map(self._size_of, unknown), strict=True):
                if isinstance(size_px, DataError):
                    is_usable[index] = False
                    path = self._paths[index]
                    text = str(size_px).removeprefix(f"{path}: ")
                    problem = Problem(file=path, kind="image", text=text, image_id=self._ids[index])
                    self._problems.append((index, -1, problem))
                else:
                    sizes_px[index] = size_px
        self.sources += [self._paths[index] for index in unknown]
        return sizes_px, is_usable

    def _size_of(self, index: int) -> tuple[int, int] | DataError:
        try:
            return image_size_px(Path(self._paths[index]))
        except DataError as error:
            return error

    def _check(self, sizes_px: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image = np.frombuffer(self._image, np.int64)
        numbers = np.frombuffer(self._numbers, np.float64).reshape(-1, 4)
        boxes = np.empty((len(order), 4), np.float32)
        kinds = np.empty(len(order), np.int8)
        overhangs = np.empty(len(order), bool)
        for start in range(0, len(order), CHECKED_AT_ONCE):
            part = np.s_[start : start + CHECKED_AT_ONCE]
            boxes[part], kinds[part], overhangs[part] = check_boxes(
                numbers[order[part]],
                sizes_px[image[order[part]]],
                box_format=self._box_format,
                unit=self._unit,
                first_pixel=self._first_pixel,
            )
        fractions, no_area = map(BOX_PROBLEMS.index, ("fractions", "no_area"))
        if (kinds == fractions).any():  # 0 and 1 alone might be pixels; next to other fractions they are edges
            kinds[np.isin(numbers[order], (0, 1)).all(1) & (kinds == no_area)] = fractions
        return boxes, kinds, overhangs

    def _fail_box(self, row: int, name: str, kind: ProblemKind | None, size_px: np.ndarray, is_clipped: bool) -> None:
        assert kind is not None
        height, width = size_px.tolist()
        numbers = np.array(self._numbers[4 * row : 4 * row + 4])
        reach_px = corners_px(numbers[None], size_px[None], self._box_format, self._unit)[1][0].tolist()
        text = box_text(
            kind,
            numbers,
            (height, width),
            box_format=self._box_format,
            unit=self._unit,
            first_pixel=self._first_pixel,
        )
        self.fail_object(
            self._image[row],
            name=name,
            item=self._item[row],
            text=text,
            difficult=bool(self._difficult[row]),
            kind=kind,
            is_clipped=is_clipped,
            reach_px=(reach_px[0], reach_px[1]),
        )

    def _find_turned(self, image: np.ndarray, kinds: np.ndarray, order: np.ndarray, sizes_px: np.ndarray) -> list[int]:
        """Report images whose boxes only fit the other orientation of the EXIF tag."""
        beyond = np.flatnonzero(kinds == BOX_PROBLEMS.index("outside"))
        if not len(beyond):
            return []
        numbers = np.frombuffer(self._numbers, np.float64).reshape(-1, 4)[order[beyond]]
        sizes = sizes_px[image[beyond]]
        _, high_px = corners_px(numbers, sizes, self._box_format, self._unit)
        is_beyond = (high_px > sizes[:, ::-1] + RANGE_TOLERANCE_PX).any(1)
        fits_turned = (high_px <= sizes + RANGE_TOLERANCE_PX).all(1)
        misfits = set(image[beyond[is_beyond & ~fits_turned]].tolist())
        candidates = sorted(set(image[beyond[is_beyond]].tolist()) - misfits)
        return [index for index in candidates if self._is_turned(index, sizes_px[index])]

    def _is_turned(self, index: int, size_px: np.ndarray) -> bool:
        height, width = size_px.tolist()
        path = Path(self._paths[index])
        try:
            stored, upright = image_size_px(path, upright=False), image_size_px(path)
        except DataError:
            return False  # reported when the image is read
        if stored == upright or (height, width) not in (stored, upright):
            return False
        problem = Problem(
            file=str(path),
            kind="image_size",
            text=(
                f"its EXIF tag turns the image from {stored[1]} x {stored[0]} to {upright[1]} x {upright[0]} px, and "
                f"its boxes fit {height} x {width} px alone, but they are read for {width} x {height} px; state the "
                "right size in the annotation, or remove the tag"
            ),
            image_id=self._ids[index],
        )
        self._problems.append((index, -1, problem))
        return True

    def _sorted_labels(self) -> tuple[list[str], np.ndarray]:
        """Return the names of all labels, sorted unless the files list them, and the new number of each label."""
        names = list(self._labels)
        label_map = np.arange(len(names) + 1, dtype=np.int32)
        if not self._is_listed:
            names = sorted(names)
            numbers = {name: number for number, name in enumerate(names, start=1)}
            label_map[1:] = [numbers[name] for name in self._labels]
        return names, label_map

    def _sorted_problems(self, label_map: np.ndarray, is_usable: np.ndarray) -> list[Problem]:
        """Put the problems in the order of the images; one of a whole image hides those of its objects."""
        positions = np.concatenate([[0], np.cumsum(is_usable)])
        return [
            replace(problem, label=int(label_map[problem.label]), position=int(positions[max(image, 0)]))
            for image, item, problem in sorted(self._problems, key=lambda entry: entry[:2])
            if item < 0 or image < 0 or is_usable[image]
        ]


def in_threads(read: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result | FileError]]:
    """Read files in threads, since this mostly waits for the disk; yield each item with its result, in order.

    Args:
        read: reads one item.
        items: what to read.

    Yields:
        The item, and its result or the `FileError` that it raised.
    """

    def attempt(some: Sequence[Item]) -> list[tuple[Item, Result | FileError]]:
        results: list[tuple[Item, Result | FileError]] = []
        for item in some:
            try:
                results.append((item, read(item)))
            except FileError as error:
                results.append((item, error))
        return results

    waiting = iter(items)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        while chunk := list(islice(waiting, READ_AT_ONCE)):
            tasks = (chunk[start : start + FILES_OF_A_TASK] for start in range(0, len(chunk), FILES_OF_A_TASK))
            for results in pool.map(attempt, tasks):
                yield from results
