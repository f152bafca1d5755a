"""Report annotations without any class of a detector once, not once per object."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.errors import DataError


def require_common_class(
    class_names: Sequence[str], opener: DatasetOpener, splits: Sequence[Mapping[str, Any]], *, split: str
) -> None:
    """Check that a detector knows a class of a split.

    Args:
        class_names: classes of the detector.
        opener: opens the split.
        splits: where the split is.
        split: its name.

    Raises:
        DataError: it knows none, or the split cannot be read.
    """
    found = opener.read(splits)
    others = [name for name in map(opener.classes, found.names[: found.num_declared]) if name is not None]
    if others and not found.is_numbered and not set(others) & set(class_names):
        raise DataError(
            f"the model knows {_listed(class_names)}; the annotations of the {split} split have {_listed(others)}: "
            "they share none"
        )


def _listed(names: Sequence[str], at_most: int = 20) -> str:
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")
