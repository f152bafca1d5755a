"""One sentence for annotations that have none of a detector's classes, in place of one for every object."""

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
    """Tell an error in the opening of a split as one about its classes, where none of them is the detector's.

    Only after an error are the annotations read again, for their own class names. What is logged of objects skipped
    waits until the split is open, since these may be all.

    Args:
        class_names: that the detector knows.
        make: a data set's class, or a `partial` of it.
        arguments: of the split; None if there is none.
        split: its name.

    Raises:
        DataError: none of the classes is the same; or the error itself, where one is, or the data's are not known.
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
                "none is the same"
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
