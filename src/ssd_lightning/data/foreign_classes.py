"""Report annotations without any class of a detector once, not once per object."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.inspection import open_leniently
from ssd_lightning.errors import DataError, UserError


@contextmanager
def comparing_classes(
    class_names: Sequence[str],
    make: Callable[..., DetectionDataset],
    arguments: Mapping[str, Any] | None,
    *,
    split: str,
) -> Iterator[None]:
    """Replace an error while opening a split if none of its classes is known to the detector.

    The annotations are read again only after an error, to get their class names. Log messages about skipped objects
    are held back until the split is open, since they may concern all objects.

    Args:
        class_names: classes of the detector.
        make: class of a data set, or a `partial` of it.
        arguments: arguments of the split; None if there is no split.
        split: name of the split.

    Raises:
        DataError: no class matches. The original error, if a class matches or the classes of the data are unknown.
    """
    with _holding_back() as held:
        try:
            yield
        except DataError as error:
            others = _own_class_names(make, arguments or {})
            if not others or set(others) & set(class_names):
                raise
            held.clear()
            raise DataError(
                f"the model knows {_listed(class_names)}; the annotations of the {split} split have {_listed(others)}: "
                "they share none"
            ) from error


def _own_class_names(make: Callable[..., DetectionDataset], arguments: Mapping[str, Any]) -> tuple[str, ...]:
    if not arguments.get("splits"):
        return ()
    try:
        return open_leniently(make, **{**arguments, "class_names": None}).class_names
    except UserError:
        return ()


def _listed(names: Sequence[str], at_most: int = 20) -> str:
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")


@contextmanager
def _holding_back() -> Iterator[list[logging.LogRecord]]:
    log, held = logging.getLogger(DetectionDataset.__module__), []

    def hold(record: logging.LogRecord) -> bool:
        held.append(record)
        return False

    log.addFilter(hold)
    try:
        yield held
    finally:
        log.removeFilter(hold)
        for record in held:
            log.handle(record)
