"""Check what the files of a split say, all at once, and put it into columns."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssd_lightning.data.annotation_checks import BOX_PROBLEMS, FRACTIONS, NO_AREA, OUTSIDE, RANGE_TOLERANCE_PX, Problem
from ssd_lightning.data.annotations import Columns, TextColumn, hash_ids
from ssd_lightning.data.formats.files import FileError, in_threads, is_within
from ssd_lightning.data.formats.found import FoundObject, FoundTable
from ssd_lightning.data.images import image_size_px
from ssd_lightning.data.split_annotations import Annotations, shared_files
from ssd_lightning.errors import DataError, listed

CARELESS_OVERHANG = 0.1
"""Share of an image's side by which a box may overhang if it was drawn carelessly. Corners that are read as sizes
overhang by more."""
CHECKED_AT_ONCE = 1 << 20
"""Objects whose boxes are checked together: bounds the memory."""


class TableBuilder(FoundTable):
    """Collects images and objects as `FoundTable` does, checks them, and makes a table of what can be used."""

    def finish(self, root: Path, *, ids_are_shared: bool = False) -> Annotations:
        """Check all boxes and return what can be used."""
        sizes_px, is_usable = self._measure()
        columns = self.objects.arrays()
        order = np.argsort(columns[0], kind="stable")
        image, label, item, difficult, numbers = (column[order] for column in columns)
        boxes, kinds, overhangs = self._check(numbers, image, sizes_px)
        is_usable[self._find_turned(image[kinds == OUTSIDE], numbers[kinds == OUTSIDE], sizes_px)] = False
        names = list(self._labels)
        for row in np.flatnonzero((kinds > 0) & is_usable[image]).tolist():
            found = FoundObject(names[label[row] - 1], numbers[row], int(item[row]), bool(difficult[row]))
            self._fail_box(image[row], found, kinds[row], sizes_px[image[row]], is_clipped=bool(overhangs[row]))
        if self.corners_advice and (kinds[is_usable[image]] == OUTSIDE).any():
            self._refuse_corners(numbers, image, sizes_px, is_usable)
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

    def _final_notes(self, usable: Sequence[int], root: Path) -> list[str]:
        notes = []
        if self.num_outlines:
            text = "outlines or rotated boxes are read as their bounding boxes; the first:"
            notes.append(f"{self.num_outlines} {text} {self._first_outline}")
        far = {folder for folder in set(map(os.path.dirname, self.paths)) if not is_within(root, Path(folder))}
        outside = [self.paths[index] for index in usable if os.path.dirname(self.paths[index]) in far]
        if outside:
            first = os.path.abspath(outside[0])
            notes.append(f"{len(outside)} of the {len(usable)} images lie outside of {root}; the first: {first}")
        if shared := list(shared_files((self.paths[index], self._ids[index]) for index in usable)):
            lines = listed(shared, separator="\n  ")
            notes.append(f"{len(shared)} image files have more than one entry:\n  {lines}")
        return notes

    def _measure(self) -> tuple[np.ndarray, np.ndarray]:
        sizes_px = np.array(self._sizes_px, np.int32).reshape(-1, 2)
        is_usable = np.ones(len(sizes_px), bool)
        for index, size_px in in_threads(self._size_of, np.flatnonzero((sizes_px <= 0).any(1)).tolist()):
            self.sources.append(self.paths[index])
            if isinstance(size_px, FileError):
                is_usable[index] = False
                self._fail_added_image(index, "image", size_px.text)
            else:
                sizes_px[index] = size_px
        return sizes_px, is_usable

    def _size_of(self, index: int) -> tuple[int, int]:
        path = self.paths[index]
        try:
            return image_size_px(Path(path))
        except DataError as error:
            raise FileError(path, str(error).removeprefix(f"{path}: ")) from error

    def _check(
        self, numbers: np.ndarray, image: np.ndarray, sizes_px: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parts = [np.s_[start : start + CHECKED_AT_ONCE] for start in range(0, len(image) or 1, CHECKED_AT_ONCE)]
        checked = [self.notation.check(numbers[part], sizes_px[image[part]]) for part in parts]
        boxes, kinds, overhangs = map(np.concatenate, zip(*checked, strict=True))
        if (kinds == FRACTIONS).any():  # 0 and 1 alone might be pixels; next to other fractions they are edges
            kinds[np.isin(numbers, (0, 1)).all(1) & (kinds == NO_AREA)] = FRACTIONS
        return boxes, kinds, overhangs

    def _fail_box(self, image: int, found: FoundObject, kind: int, size_px: np.ndarray, *, is_clipped: bool) -> None:
        numbers = np.array(found.numbers)
        _, high_px = self.notation.corners_px(numbers[None], size_px[None])
        problem_kind = BOX_PROBLEMS[kind]
        assert problem_kind is not None
        text = self.notation.describe(problem_kind, numbers, (int(size_px[0]), int(size_px[1])))
        reach_px = tuple(high_px[0].tolist())
        self._fail_object(int(image), found, text=text, kind=problem_kind, is_clipped=is_clipped, reach_px=reach_px)

    def _refuse_corners(
        self, numbers: np.ndarray, image: np.ndarray, sizes_px: np.ndarray, is_usable: np.ndarray
    ) -> None:
        """Raise `DataError` if all boxes of the usable images fit as corners, and one overhangs by far as a size."""
        there = is_usable[image]
        numbers, sizes_px = numbers[there], sizes_px[image[there]]
        _, high_px = self.notation.corners_px(numbers, sizes_px)
        overhangs_far = (high_px > (1 + CARELESS_OVERHANG) * sizes_px[:, ::-1]).any()
        as_corners = replace(self.notation, box_format="xyxy").check(numbers, sizes_px)
        if overhangs_far and not as_corners.kinds.any():
            outside = (entry for entry in self._problems if entry[2].kind == "outside")
            _, _, first = min(outside, key=lambda entry: entry[:2])
            what = "its four numbers are read as x, y, width, height, but all boxes of the file fit as two corners"
            raise DataError(f"{first}; {what}; {self.corners_advice}")

    def _find_turned(self, image: np.ndarray, numbers: np.ndarray, sizes_px: np.ndarray) -> list[int]:
        """Report images whose boxes only fit the other orientation of the EXIF tag, among those with boxes outside."""
        sizes = sizes_px[image]
        _, high_px = self.notation.corners_px(numbers, sizes)
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
