"""Measured values as records and tables; nothing here needs torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from ssd_lightning.visualization.tables import TextTable, quantity, spread


@dataclass(frozen=True)
class Comparison:
    """This project and a peer, timed alternately at the same work, so that noise affects both.

    Args:
        part: measured part, e.g. "loss".
        setting: conditions, e.g. "batch 32, 8732 priors, 20 classes".
        peer: name of the other side.
        ours: one measurement per pair, in `unit`.
        theirs: measurements of the peer, in the same order.
        unit: "s", "MiB", or anything "/s", where more is better.
        note: e.g. that both sides gave the same result.
    """

    part: str
    setting: str
    peer: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    unit: str = "s"
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """How many times better this project is, per pair."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return sorted(ours / theirs if self.unit.endswith("/s") else theirs / ours for ours, theirs in pairs)

    def as_record(self) -> dict[str, Any]:
        """Return plain values, with the median ratio."""
        return {**asdict(self), "ratios": self.ratios, "ratio": median(self.ratios)}


@dataclass(frozen=True)
class Point:
    """Cost of one image at one size of one axis."""

    part: str
    axis: str
    size: int
    ms_a_image: float
    mib_a_image: float | None = None
    """Peak memory of tensors; None if it was not measured."""

    def exponent(self, before: "Point | None") -> float | None:
        """Return the growth of the time since the previous point, as a power of the size: 1 is linear.

        On the axis `batch` the time is that of the whole batch; on `input` the size is the number of pixels. None
        without a previous point of the same curve, or if its size was 0.
        """
        if before is None or (before.part, before.axis) != (self.part, self.axis) or before.size == 0:
            return None
        size = math.log(self.size / before.size) * (2 if self.axis == "input" else 1)
        return math.log(self.ms_a_image / before.ms_a_image) / size + (self.axis == "batch")

    def as_record(self, before: "Point | None") -> dict[str, Any]:
        """Return plain values, with the exponent."""
        return {**asdict(self), "exponent": self.exponent(before)}


def comparison_table(records: Sequence[Mapping[str, Any]]) -> TextTable:
    """Tabulate records of `Comparison`."""
    rows = []
    for record in records:
        note = f" ({record['note']})" if record["note"] else ""
        what = f"{record['part']}: {record['setting']}, against {record['peer']}{note}"
        sides = (quantity(median(record[side]), record["unit"]) for side in ("ours", "theirs"))
        rows.append((what, *sides, spread(record["ratios"])))
    return TextTable(("what", "ours", "peer", "times better (quartiles)"), tuple(rows))


def growth_table(records: Sequence[Mapping[str, Any]]) -> TextTable:
    """Tabulate records of `Point`."""
    rows = []
    for record in records:
        memory = "" if record["mib_a_image"] is None else quantity(record["mib_a_image"], "MiB")
        exponent = "" if record["exponent"] is None else f"{record['exponent']:.2f}"
        time = quantity(record["ms_a_image"], "ms")
        rows.append((record["part"], record["axis"], str(record["size"]), time, memory, exponent))
    return TextTable(("part", "axis", "size", "time an image", "memory an image", "grows as size to the"), tuple(rows))


def as_markdown(table: TextTable) -> str:
    """Return a table in Markdown."""
    rule = ("---",) * len(table.header)
    return "".join(f"| {' | '.join(row)} |\n" for row in (table.header, rule, *table.rows))
