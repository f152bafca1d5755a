"""Tables of text on the terminal, and the format of their numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, quantiles, stdev

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssd_lightning.errors import one_line


@dataclass(frozen=True)
class TextTable:
    """Rows of text under a header. An empty row is a line."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def print_table(table: TextTable, *, numbers: bool = False) -> None:
    """Print a table on the terminal; with `numbers`, all columns but the first are aligned at their right."""
    shown = Table()
    for place, name in enumerate(table.header):
        shown.add_column(name, justify="right" if numbers and place else "left")
    for row in table.rows:
        if row:
            shown.add_row(*(Text(cell) for cell in row))  # no markup
        else:
            shown.add_section()
    Console().print(shown)


def print_scores(title: str, per_class: Mapping[str, Mapping[str, float]], summary: Mapping[str, float]) -> None:
    """Print one row per class, and the means below.

    `per_class` has the columns of the table: name of the score -> class -> value; NaN if a class has no objects.
    """
    names = next(iter(per_class.values()))
    rows = [(one_line(name), *(score_text(values[name]) for values in per_class.values())) for name in names]
    print(f"\n{title}")
    print_table(TextTable(("class", *per_class), rows), numbers=True)
    for name, value in summary.items():
        print(f"  {name:<24} {score_text(value)}")


def print_weights(title: str, kept: Sequence[str], reinitialised: Mapping[str, str]) -> None:
    """Print which parts of a network were loaded from a file and which are reinitialised.

    `kept` are the dotted names of the loaded parameters, `reinitialised` those of the others, with the reason.
    """
    rows = []
    for part in dict.fromkeys(map(_part, [*kept, *reinitialised])):
        reasons = [reason for name, reason in reinitialised.items() if _part(name) == part]
        filled = sum(_part(name) == part for name in kept)
        rows.append((part, str(filled), str(len(reasons) or "-"), ", ".join(dict.fromkeys(reasons))))
    print(f"\n{title}")
    print_table(TextTable(("part", "filled", "reinitialised", "because"), rows))


def spread(ratios: Sequence[float]) -> str:
    """Format the median of ratios, with quartiles if there are enough."""
    middle = f"{median(ratios):.2f}"
    if len(ratios) < 3:
        return middle
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return f"{middle} ({low:.2f}-{high:.2f})"


def mean_and_deviation(values: Sequence[float], *, digits: int, sign: str) -> str:
    """Format mean and standard deviation (n - 1 in the denominator), or the single value."""
    mean = f"{fmean(values):.{digits}f}"
    return f"{mean} {sign} {stdev(values):.{digits}f}" if len(values) > 1 else mean


def quantity(value: float, unit: str) -> str:
    """Format a measured value with three digits and a suitable unit."""
    if unit == "s" and value < 1:
        value, unit = value * 1e3, "ms"
    if unit == "FLOP/s":
        value, unit = value / 1e12, "TFLOP/s"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def share(part: int, whole: int) -> str:
    """Format a fraction as a percentage; a dash if the whole is 0."""
    return f"{part / whole:.1%}" if whole else "-"


def counted(count: int, what: str) -> str:
    """Format a number of things: 1 image, 2 images."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def _part(name: str) -> str:
    return ".".join(name.split(".")[:2])


def score_text(value: float) -> str:
    """Format a score with four digits; NaN stands for a class without objects."""
    return "no objects" if math.isnan(value) else f"{value:.4f}"
