"""The result of an export's verification as a table."""

from collections.abc import Mapping
from statistics import median

from ssd_lightning.inference.export.parity import Parity
from ssd_lightning.inference.export.verify_export import MOST_UNMATCHED, RESIZE_MOST_UNMATCHED, Verification
from ssd_lightning.visualization.tables import TextTable, quantity, score_text, spread

Seconds = tuple[tuple[float, ...], tuple[float, ...]]
"""Times of the checkpoint and of the file, in pairs."""


def verification_table(
    verification: Verification,
    *,
    tolerance: float | None,
    max_map_loss: float,
    seconds: Mapping[int, Seconds],
    bytes_of: tuple[int, int],
) -> TextTable:
    """Tabulate the result of a verification.

    There is no limit for boxes and scores if `tolerance` is None. `seconds` has those of a batch by its size,
    `bytes_of` the sizes of the checkpoint's weights and of the file.
    """
    rows = [*_parity_rows(verification.parity, "", tolerance, tolerance and MOST_UNMATCHED)]
    if verification.whole is not None and verification.whole.images:
        rows += _parity_rows(verification.whole, "resized: ", None, tolerance and RESIZE_MOST_UNMATCHED)
    for name, (before, after) in verification.scores.items():
        rows.append((name, score_text(before), score_text(after), f"{after - before:+.4f}", f"{-max_map_loss:g}"))
    for batch, (before_s, after_s) in seconds.items():
        ratio = spread(sorted(before / after for before, after in zip(before_s, after_s, strict=True)))
        times = (quantity(median(before_s), "s"), quantity(median(after_s), "s"))
        rows.append((f"time, batch of {batch}", *times, f"x {ratio}", ""))
    size = tuple(f"{count / 2**20:.1f} MiB" for count in bytes_of)
    rows.append(("weights / file", *size, f"{bytes_of[1] / bytes_of[0]:.2f} of the size", ""))
    return TextTable(("", "checkpoint", "file", "difference", "limit"), tuple(rows))


def _parity_rows(
    parity: Parity, prefix: str, tolerance: float | None, most_unmatched: float | None
) -> list[tuple[str, ...]]:
    limit = "" if most_unmatched is None else f"{most_unmatched:.1%}"
    most = "" if tolerance is None else f"{tolerance:g}"
    counts = (str(parity.detections), str(parity.others))
    return [
        (f"{prefix}detections", *counts, f"{parity.unmatched} without partner", limit),
        (f"{prefix}boxes", "", "", f"{parity.boxes:.2g} ({parity.boxes_px:.2g} px)", most),
        (f"{prefix}scores", "", "", f"{parity.scores:.2g}", most),
    ]
