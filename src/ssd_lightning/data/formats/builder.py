"""Collect what the files of a split say, check it all at once, and put it into columns."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

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
from ssd_lightning.data.annotations import Annotations, Problem, ProblemKind
from ssd_lightning.data.columns import Columns, TextColumn, hash_ids
from ssd_lightning.data.dataset import shared_files
from ssd_lightning.data.formats.files import FileError, is_within
from ssd_lightning.data.formats.found import FoundImage, FoundObject, ObjectColumns
from ssd_lightning.data.formats.image_files import portable_path
from ssd_lightning.data.image_suffixes import IMAGE_SUFFIXES
from ssd_lightning.data.images import image_size_px
from ssd_lightning.errors import DataError, listed

CARELESS_OVERHANG = 0.1
"""Share of an image's side by which a box may overhang if it was drawn carelessly. Corners that are read as sizes
overhang by more."""
CHECKED_AT_ONCE = 1 << 20
"""Objects whose boxes are checked together: bounds the memory."""


@dataclass(kw_only=True)
class TableBuilder:
    """Collects images and objects. For the fields see `Annotations`, and `check_boxes` for those of a box.

    Objects may have other classes than `class_names`, those that the files declare. Without `is_listed`, every name
    that occurs is a class, and they are sorted at the end.
    """

    class_names: Sequence[str] = ()
    is_listed: bool = False
    is_numbered: bool = False
    item_format: str = "object {item} '{name}'"
    box_format: BoxFormat = "xyxy"
    unit: Unit = "pixels"
    first_pixel: int = 0
    corners_advice: str = ""
    """What to do if boxes leave their images as x, y, w, h, but all fit as two corners; empty means no such test."""

    def __post_init__(self) -> None:
        self._notation: Any = {"box_format": self.box_format, "unit": self.unit, "first_pixel": self.first_pixel}
        self.ids: set[str] = set()
        self.notes: list[str] = []
        self.sources: list[str] = []
        self._labels = {name: label for label, name in enumerate(self.class_names, start=1)}
        self._ids: list[str] = []
        self.paths: list[str] = []
        self._files: list[str] = []
        self._sizes_px: list[tuple[int, int]] = []
        self.objects = ObjectColumns()
        self._problems: list[tuple[int, int, Problem]] = []
        self.num_outlines = 0
        self._first_outline = ""

    def new_id(self, name: str) -> str:
        """Return an image's path without suffix as its id, or the whole path if an image has that id."""
        name = portable_path(name)
        while name.startswith("../"):
            name = name.removeprefix("../")
        if "//" in name or "/./" in name:
            name = str(PurePosixPath(name))
        stem, suffix = os.path.splitext(name)
        image_id = stem if suffix.lower() in IMAGE_SUFFIXES else name
        number = 1
        while image_id in self.ids:
            image_id = name if number == 1 else f"{name} ({number})"
            number += 1
        self.ids.add(image_id)
        return image_id

    def label(self, name: str) -> int:
        """Return the label of a class name; a new one gets the next."""
        return self._labels.setdefault(name, len(self._labels) + 1)

    def add_image(self, image_id: str, found: FoundImage | FileError) -> int | None:
        """Add an image and its objects, and return its index; None if it cannot be used, which is reported."""
        if isinstance(found, FileError):
            problem = Problem(file=found.file, kind=found.kind, text=found.text, image_id=image_id)
            self._problems.append((len(self._ids), -1, problem))
            return None
        image = len(self._ids)
        self._ids.append(image_id)
        self.paths.append(str(found.path))
        self._files.append(str(found.file))
        self._sizes_px.append(found.size_px or (0, 0))
        for one in found.objects:
            self.add_object(image, one)
        return image

    def add_named_image(
        self,
        name: str,
        find: Callable[[], str],
        *,
        size_px: tuple[int, int] | None,
        file: Path,
        objects: Sequence[FoundObject] = (),
    ) -> int | None:
        """Add the image that a file calls `name`; `find` returns its path, or raises `FileError`."""
        try:
            found: FoundImage | FileError = FoundImage(find(), size_px, file, objects)
        except FileError as error:
            found = error
        return self.add_image(self.new_id(name), found)

    def add_object(self, image: int, found: FoundObject) -> None:
        """Add an object of an image, or report what is wrong with it."""
        if isinstance(found.numbers, str):
            self._fail_object(image, found, text=found.numbers)
            return
        self.objects.append(image, self.label(found.name), int(found.item), found.difficult, found.numbers)
        if found.is_outline:
            self.count_outline(image, found)

    def count_outline(self, image: int, found: FoundObject) -> None:
        """Count a shape that is read as its bounding box; a note says so once."""
        self.num_outlines += 1
        if self.num_outlines == 1:
            self._first_outline = f"{self._files[image]}: {self._describe(image, found)}"

    def fail_file(self, file: str | Path, text: str, *, kind: ProblemKind = "annotation") -> None:
        """Report a part of a file that belongs to no image."""
        self._problems.append((-1, 0, Problem(file=str(file), kind=kind, text=text)))

    def finish(self, root: Path, *, ids_are_shared: bool = False) -> Annotations:
        """Check all boxes and return what can be used."""
        sizes_px, is_usable = self._measure()
        objects = self.objects
        order = np.argsort(np.frombuffer(objects.image, np.int64), kind="stable")
        image, item, label, difficult = (
            np.frombuffer(column, column.typecode)[order]
            for column in (objects.image, objects.item, objects.label, objects.difficult)
        )
        numbers = np.frombuffer(objects.box, np.float64).reshape(-1, 4)
        boxes, kinds, overhangs = self._check(numbers, order, image, sizes_px)
        beyond = np.flatnonzero(kinds == BOX_PROBLEMS.index("outside"))
        is_usable[self._find_turned(image[beyond], numbers[order[beyond]], sizes_px)] = False
        names = list(self._labels)
        for row in np.flatnonzero((kinds > 0) & is_usable[image]).tolist():
            found = FoundObject(names[label[row] - 1], numbers[order[row]], int(item[row]), bool(difficult[row]))
            self._fail_box(image[row], found, kinds[row], sizes_px[image[row]], is_clipped=bool(overhangs[row]))
        if self.corners_advice and (kinds[is_usable[image]] == BOX_PROBLEMS.index("outside")).any():
            self._refuse_corners(numbers[order], image, sizes_px, is_usable)
        kept = is_usable[image] & ((kinds == 0) | overhangs)
        counts = np.bincount(image[kept], minlength=len(self._ids))[is_usable]
        names, label_map = self._sorted_labels()
        usable = np.flatnonzero(is_usable).tolist()
        self.notes += self._final_notes(usable, root)
        ids = [self._ids[index] for index in usable]
        files = [self._files[index] for index in usable]
        may_bring_images = (str(Path(one.file).parent) for _, _, one in self._problems if one.kind == "missing")
        return Annotations(
            columns=Columns(
                image_ids=TextColumn.of(ids),
                image_paths=TextColumn.of(self.paths[index] for index in usable),
                files=TextColumn.of(files[:1] if len(set(files)) == 1 else files),
                id_hashes=hash_ids(ids),
                sizes_px=sizes_px[is_usable],
                starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
                boxes_xyxy_px=boxes[kept],
                labels=label_map[label[kept]],
                difficult=difficult[kept].astype(bool),
                overhangs=overhangs[kept],
                items=item[kept],
            ),
            names=names,
            num_declared=len(self.class_names) if self.is_listed else len(names),
            is_listed=self.is_listed,
            is_numbered=self.is_numbered,
            ids_are_shared=ids_are_shared,
            item_format=self.item_format,
            problems=self._sorted_problems(label_map, is_usable),
            notes=self.notes,
            sources=[*dict.fromkeys([*self.sources, str(root), *may_bring_images])],
            roots=[str(root)],
        )

    def _describe(self, image: int, found: FoundObject) -> str:
        return self.item_format.format(item=found.item, name=found.name, image=Path(self.paths[image]).name)

    def _fail_object(self, image: int, found: FoundObject, *, text: str, **more: Any) -> None:
        problem = Problem(
            file=self._files[image],
            item=self._describe(image, found),
            text=text,
            image_id=self._ids[image],
            name=found.name,
            label=self._labels.get(found.name, 0),
            difficult=found.difficult,
            **{"kind": "annotation", **more},
        )
        self._problems.append((image, found.item if isinstance(found.item, int) else 0, problem))

    def _final_notes(self, usable: Sequence[int], root: Path) -> list[str]:
        notes = []
        if self.num_outlines:
            text = "outlines or rotated boxes are read as their bounding boxes; the first:"
            notes.append(f"{self.num_outlines} {text} {self._first_outline}")
        folders = {path.rpartition("/")[0] for path in self.paths}
        far = {folder for folder in folders if not is_within(root, Path(folder))}
        paths = (self.paths[index] for index in usable if far)
        outside = [path for path in paths if path.rpartition("/")[0] in far]
        if outside:
            first = os.path.abspath(outside[0])
            notes.append(f"{len(outside)} of the {len(usable)} images lie outside of {root}; the first: {first}")
        if len(set(self.paths)) < len(self.paths):
            shared = list(shared_files((self.paths[index], self._ids[index]) for index in usable))
            if shared:
                lines = listed(shared, separator="\n  ")
                notes.append(f"{len(shared)} image files have more than one entry:\n  {lines}")
        return notes

    def _measure(self) -> tuple[np.ndarray, np.ndarray]:
        """Ask the images for sizes that no annotation states."""
        sizes_px = np.array(self._sizes_px, np.int32).reshape(-1, 2)
        is_usable = np.ones(len(sizes_px), bool)
        unknown = np.flatnonzero((sizes_px <= 0).any(1)).tolist()
        with ThreadPoolExecutor() as pool:
            for index, size_px in zip(unknown, pool.map(self._size_of, unknown), strict=True):
                if isinstance(size_px, DataError):
                    is_usable[index] = False
                    self._fail_added_image(index, "image", str(size_px).removeprefix(f"{self.paths[index]}: "))
                else:
                    sizes_px[index] = size_px
        self.sources += [self.paths[index] for index in unknown]
        return sizes_px, is_usable

    def _size_of(self, index: int) -> tuple[int, int] | DataError:
        try:
            return image_size_px(Path(self.paths[index]))
        except DataError as error:
            return error

    def _fail_added_image(self, index: int, kind: ProblemKind, text: str) -> None:
        problem = Problem(file=self.paths[index], kind=kind, text=text, image_id=self._ids[index])
        self._problems.append((index, -1, problem))

    def _check(
        self, numbers: np.ndarray, order: np.ndarray, image: np.ndarray, sizes_px: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        boxes = np.empty((len(order), 4), np.float32)
        kinds = np.empty(len(order), np.int8)
        overhangs = np.empty(len(order), bool)
        for start in range(0, len(order), CHECKED_AT_ONCE):
            part = np.s_[start : start + CHECKED_AT_ONCE]
            checked = check_boxes(numbers[order[part]], sizes_px[image[part]], **self._notation)
            boxes[part], kinds[part], overhangs[part] = checked
        fractions, no_area = map(BOX_PROBLEMS.index, ("fractions", "no_area"))
        if (kinds == fractions).any():  # 0 and 1 alone might be pixels; next to other fractions they are edges
            kinds[np.isin(numbers[order], (0, 1)).all(1) & (kinds == no_area)] = fractions
        return boxes, kinds, overhangs

    def _fail_box(self, image: int, found: FoundObject, kind: int, size_px: np.ndarray, *, is_clipped: bool) -> None:
        numbers = np.array(found.numbers)
        _, high_px = corners_px(numbers[None], size_px[None], self.box_format, self.unit)
        problem_kind = BOX_PROBLEMS[kind]
        assert problem_kind is not None
        text = box_text(problem_kind, numbers, (int(size_px[0]), int(size_px[1])), **self._notation)
        reach_px = tuple(high_px[0].tolist())
        self._fail_object(int(image), found, text=text, kind=problem_kind, is_clipped=is_clipped, reach_px=reach_px)

    def _refuse_corners(
        self, numbers: np.ndarray, image: np.ndarray, sizes_px: np.ndarray, is_usable: np.ndarray
    ) -> None:
        """Raise `DataError` if all boxes of the usable images fit as corners, and one overhangs by far as a size."""
        there = is_usable[image]
        numbers, sizes_px = numbers[there], sizes_px[image[there]]
        _, high_px = corners_px(numbers, sizes_px, self.box_format, self.unit)
        overhangs_far = (high_px > (1 + CARELESS_OVERHANG) * sizes_px[:, ::-1]).any()
        as_corners = check_boxes(numbers, sizes_px, **{**self._notation, "box_format": "xyxy"})
        if overhangs_far and not as_corners.kinds.any():
            outside = (entry for entry in self._problems if entry[2].kind == "outside")
            _, _, first = min(outside, key=lambda entry: entry[:2])
            what = "its four numbers are read as x, y, width, height, but all boxes of the file fit as two corners"
            raise DataError(f"{first}; {what}; {self.corners_advice}")

    def _find_turned(self, image: np.ndarray, numbers: np.ndarray, sizes_px: np.ndarray) -> list[int]:
        """Report images whose boxes only fit the other orientation of the EXIF tag, among those with boxes outside."""
        sizes = sizes_px[image]
        _, high_px = corners_px(numbers, sizes, self.box_format, self.unit)
        is_beyond = (high_px > sizes[:, ::-1] + RANGE_TOLERANCE_PX).any(1)
        fits_turned = (high_px <= sizes + RANGE_TOLERANCE_PX).all(1)
        candidates = set(image[is_beyond].tolist()) - set(image[is_beyond & ~fits_turned].tolist())
        return [index for index in sorted(candidates) if self._is_turned(index, sizes_px[index])]

    def _is_turned(self, index: int, size_px: np.ndarray) -> bool:
        height, width = size_px.tolist()
        path = Path(self.paths[index])
        try:
            stored, upright = image_size_px(path, upright=False), image_size_px(path)
        except DataError:
            return False  # reported when the image is read
        if stored == upright or (height, width) not in (stored, upright):
            return False
        text = (
            f"its EXIF tag turns the image from {stored[1]} x {stored[0]} to {upright[1]} x {upright[0]} px, and its "
            f"boxes fit {height} x {width} px alone, but they are read for {width} x {height} px; state the right size "
            "in the annotation, or remove the tag"
        )
        self._fail_added_image(index, "image_size", text)
        return True

    def _sorted_labels(self) -> tuple[list[str], np.ndarray]:
        """Return the names of all labels, sorted unless the files list them, and the new number of each label."""
        names = list(self._labels) if self.is_listed else sorted(self._labels)
        numbers = {name: number for number, name in enumerate(names, start=1)}
        return names, np.array([0, *(numbers[name] for name in self._labels)], np.int32)

    def _sorted_problems(self, label_map: np.ndarray, is_usable: np.ndarray) -> list[Problem]:
        """Put the problems in the order of the images; one of a whole image hides those of its objects."""
        positions = np.concatenate([[0], np.cumsum(is_usable)])
        return [
            replace(problem, label=int(label_map[problem.label]), position=int(positions[max(image, 0)]))
            for image, item, problem in sorted(self._problems, key=lambda entry: entry[:2])
            if item < 0 or image < 0 or is_usable[image]
        ]
