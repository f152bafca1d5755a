"""Tables of measured values, on the terminal and in Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class TextTable:
    """Rows of text under a header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def print_table(table: TextTable) -> None:
    """Print a table on the terminal."""
    shown = Table(*table.header)
    for row in table.rows:
        shown.add_row(*row)
    Console().print(shown)


def as_markdown(table: TextTable) -> str:
    """Return a table in Markdown."""
    rule = ("---",) * len(table.header)
    rows = ([cell.replace("\n", " ") for cell in row] for row in (table.header, rule, *table.rows))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def comparison_table(comparisons: Sequence[Mapping[str, Any]]) -> TextTable:
    """Tabulate comparisons of this project with a peer.

    Args:
        comparisons: records with `part`, `setting`, `peer`, `unit`, `ours`, `theirs`, `ratios`, `bar`, `at_most`, `met`
            and `note`.
    """
    header = ("what", "ours", "peer", "ratio\n(quartiles)", "bar")
    return TextTable(header, tuple(_comparison_row(comparison) for comparison in comparisons))


def _comparison_row(comparison: Mapping[str, Any]) -> tuple[str, ...]:
    unit = comparison["unit"]
    sign = "<=" if comparison["at_most"] else ">="
    verdict = {True: "met", False: "missed", None: ""}[comparison["met"]]
    bar = "" if comparison["bar"] is None else f"{sign} {comparison['bar']:g}\n{verdict}"
    note = f" ({comparison['note']})" if comparison["note"] else ""
    return (
        f"{comparison['part']}: {comparison['setting']}, against {comparison['peer']}{note}",
        quantity(median(comparison["ours"]), unit),
        quantity(median(comparison["theirs"]), unit),
        spread(comparison["ratios"]),
        bar,
    )


def spread(ratios: Sequence[float]) -> str:
    """Format the median of ratios, with quartiles if there are enough."""
    middle = f"{median(ratios):.2f}"
    if len(ratios) < 3:
        return middle
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return f"{middle}\n({low:.2f}-{high:.2f})"


def quantity(value: float, unit: str) -> str:
    """Format a measured value with three digits and a suitable unit."""
    if unit == "s" and value < 1:
        value, unit = value * 1e3, "ms"
    if unit == "FLOP/s":
        value, unit = value / 1e12, "TFLOP/s"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def growth_table(points: Sequence[Mapping[str, Any]]) -> TextTable:
    """Tabulate how the cost grows.

    Args:
        points: records with `part`, `axis`, `size`, `ms_a_image`, `mib_a_image` and `exponent`: the time has grown
            with the size to this power since the previous point.
    """
    header = ("part", "axis", "size", "time an image", "memory an image", "grows as size to the")
    return TextTable(header, tuple(_growth_row(point) for point in points))


def _growth_row(point: Mapping[str, Any]) -> tuple[str, ...]:
    memory = "" if point["mib_a_image"] is None else quantity(point["mib_a_image"], "MiB")
    exponent = "" if point["exponent"] is None else f"{point['exponent']:.2f}"
    milliseconds = quantity(point["ms_a_image"], "ms")
    return point["part"], point["axis"], str(point["size"]), milliseconds, memory, exponent
