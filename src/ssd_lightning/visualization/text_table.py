"""Tables of text on the terminal, and the format of their numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

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


def spread(ratios: Sequence[float]) -> str:
    """Format the median of ratios, with quartiles if there are enough."""
    middle = f"{median(ratios):.2f}"
    if len(ratios) < 3:
        return middle
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return f"{middle} ({low:.2f}-{high:.2f})"


def quantity(value: float, unit: str) -> str:
    """Format a measured value with three digits and a suitable unit."""
    if unit == "s" and value < 1:
        value, unit = value * 1e3, "ms"
    if unit == "FLOP/s":
        value, unit = value / 1e12, "TFLOP/s"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
