"""What a reader finds in the files of a split, and how several splits become one."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ssd_lightning.data.annotation_checks import Problem
from ssd_lightning.data.annotations import AnnotationTable, Columns, TextColumn
from ssd_lightning.errors import ConfigurationError, one_line


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
    item_formats: Sequence[str] = ()
    """That of each image, where splits are joined."""
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
    """Yield a sentence for each image file that several images share; `images` has path and id of each."""
    ids: dict[str, list[str]] = {}
    for path, image_id in images:
        ids.setdefault(path, []).append(image_id)
    for path, names in ids.items():
        if len(names) > 1:
            shown = ", ".join(f"'{name}'" for name in dict.fromkeys(names))
            yield one_line(f"{path}: the split names it {len(names)} times (as {shown}); it is used for each of them")


def absolute_roots(splits: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Return the absolute path of each split's root, with links unresolved.

    Raises `ConfigurationError` if a root is no path, or the name of a split is no text.
    """
    for root, name in ((split.get("root"), split.get("split")) for split in splits):
        if not isinstance(root, str | Path):
            advice = f"./{root}" if isinstance(root, int) else ""  # a folder that is called 2024
            raise ConfigurationError(f"root={root!r}: it is the folder of a data set; set data.root={advice}")
        if not isinstance(name, str):
            several = "several splits are data.train=[{split: NAME}, {split: NAME}]"
            advice = f"write a name of digits in quotes: '\"{name}\"'" if isinstance(name, int) else several
            raise ConfigurationError(f"split={name!r}: it is the name of one split; {advice}")
    return [Path(os.path.abspath(Path(split["root"]).expanduser())) for split in splits]


def _root_prefixes(roots: Sequence[Path]) -> dict[Path, str]:
    """Return the prefix of the image ids of every root: empty for one root, else its folder's name."""
    distinct, depth = set(roots), 1
    prefixes = dict.fromkeys(distinct, "")
    # VOC2007 and VOC2012 need one folder name; a/VOC2007 and b/VOC2007 need two.
    while len(set(prefixes.values())) < len(distinct):
        prefixes = {root: "/".join(root.parts[-depth:]) + "/" for root in distinct}
        depth += 1
    return prefixes


def join(found: Sequence[Annotations], roots: Sequence[Path], splits: Sequence[str]) -> Annotations:
    """Join the annotations of several splits. Classes of one name become one.

    With several roots, the images' ids start with the root's folder: VOC2007/000005. With several splits of a root they
    also start with the split, unless ids are shared: then an image in several splits comes once. The hashes of the ids
    stay those of the single splits, so that further splits do not change which images are held out.
    """
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigurationError("there is no split to open; give splits")
    prefixes = _root_prefixes(roots)
    declared = [name for one in found if one.is_listed for name in one.names[: one.num_declared]]
    declared += sorted({name for one in found if not one.is_listed for name in one.names} - set(declared))
    names = list(dict.fromkeys([*declared, *(name for one in found for name in one.names)]))
    labels = {name: label for label, name in enumerate(names, start=1)}
    seen: set[str] = set()
    tables, ids, problems = [], [], []
    before = 0
    for one, root, split in zip(found, roots, splits, strict=True):
        inner = f"{split}/" if roots.count(root) > 1 and not one.ids_are_shared else ""
        prefix = f"{prefixes[root]}{inner}"
        of_split = [prefix + image_id for image_id in AnnotationTable(one.columns).image_ids]
        is_new = np.array([image_id not in seen for image_id in of_split], bool)
        known = set(seen)
        seen.update(of_split)
        ids += [image_id for image_id, new in zip(of_split, is_new, strict=True) if new]
        label_map = np.array([0, *(labels[name] for name in one.names)], np.int64)
        tables.append(AnnotationTable(one.columns, label_map=label_map).select(is_new))
        for problem in one.problems:
            image_id = None if problem.image_id is None else prefix + problem.image_id
            if image_id is None or image_id not in known:
                seen.update([image_id] if image_id else [])
                label = int(label_map[problem.label])
                position = before + int(is_new[: problem.position].sum())
                moved = replace(problem, image_id=image_id, label=label, position=position)
                problems.append(replace(moved, id_in_set=problem.image_id))
        before += int(is_new.sum())
    return Annotations(
        columns=_joined_columns(tables, ids),
        names=names,
        num_declared=len(declared),
        is_listed=any(one.is_listed for one in found),
        is_numbered=all(one.is_numbered for one in found),
        item_formats=[one.item_format for one, table in zip(found, tables, strict=True) for _ in range(len(table))],
        problems=problems,
        notes=[note for one in found for note in one.notes],
        roots=[*dict.fromkeys(root for one in found for root in one.roots)],
    )


def _joined_columns(tables: Sequence[AnnotationTable], ids: Sequence[str]) -> Columns:
    objects = [(table.columns, table.objects()) for table in tables]
    return Columns(
        image_ids=TextColumn.of(ids),
        image_paths=TextColumn.of(path for table in tables for path in table.image_paths),
        files=TextColumn.of(table.columns.file_of(row) for table in tables for row in table.rows),
        id_hashes=np.concatenate([table.columns.id_hashes[table.rows] for table in tables]),
        sizes_px=np.concatenate([table.sizes_px for table in tables]),
        starts=np.concatenate([[0], np.cumsum(np.concatenate([table.counts for table in tables]))]),
        boxes_xyxy_px=np.concatenate([one.boxes_xyxy_px for _, one in objects]),
        labels=np.concatenate([one.labels for _, one in objects]).astype(np.int32),
        difficult=np.concatenate([one.difficult for _, one in objects]),
        overhangs=np.concatenate([columns.overhangs[one.row] for columns, one in objects]),
        items=np.concatenate([columns.items[one.row] for columns, one in objects]),
    )
