"""Score tables on the terminal."""

import math
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssd_lightning.errors import one_line


def print_scores(title: str, per_class: Mapping[str, Mapping[str, float]], summary: Mapping[str, float]) -> None:
    """Print one row per class, and the means below.

    Args:
        title: name of the scored images.
        per_class: columns of the table: name of the score -> class -> value; NaN if a class has no objects.
        summary: name -> value, printed below the table.
    """
    table = Table()
    table.add_column("class")
    for column in per_class:
        table.add_column(column, justify="right")
    for name in next(iter(per_class.values())):
        table.add_row(Text(one_line(name)), *(_number(values[name]) for values in per_class.values()))  # no markup
    console = Console()
    console.print(f"\n{title}", highlight=False)
    console.print(table)
    for name, value in summary.items():
        console.print(f"  {name:<24} {_number(value)}", highlight=False)


def print_weights(title: str, kept: Sequence[str], reinitialised: Mapping[str, str]) -> None:
    """Print which parts of a network were loaded from a file and which are reinitialised.

    Args:
        title: source of the weights.
        kept: dotted names of the loaded parameters.
        reinitialised: dotted names of the others, with the reason.
    """
    table = Table("part", "filled", "reinitialised", "because")
    for part in dict.fromkeys(map(_part, [*kept, *reinitialised])):
        reasons = dict.fromkeys(reason for name, reason in reinitialised.items() if _part(name) == part)
        filled, fresh = (sum(_part(name) == part for name in names) for names in (kept, reinitialised))
        table.add_row(part, str(filled), str(fresh or "-"), ", ".join(reasons))
    console = Console()
    console.print(f"\n{title}", highlight=False)
    console.print(table)


def _part(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _number(value: float) -> str:
    return "no objects" if math.isnan(value) else f"{value:.4f}"
