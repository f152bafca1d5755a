import pytest

from ssd_lightning.visualization.benchmark_tables import (
    TextTable,
    as_markdown,
    comparison_table,
    growth_table,
    quantity,
    spread,
)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.01234, "s", "12.3 ms"),
        (0.5, "s", "500 ms"),
        (2.345, "s", "2.35 s"),
        (1234.5, "images/s", "1234 images/s"),
        (0.5, "MiB", "0.5 MiB"),
        (3.21e14, "FLOP/s", "321 TFLOP/s"),
    ],
)
def test_quantities(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_spread_shows_quartiles_where_there_are_any() -> None:
    assert spread([2.0]) == "2.00"
    assert spread([1.0, 2.0]) == "1.50"
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == "3.00\n(2.00-4.00)"


@pytest.mark.parametrize(
    ("bar", "at_most", "met", "text"),
    [
        (3.0, False, True, ">= 3\nmet"),
        (3.0, False, False, ">= 3\nmissed"),
        (0.25, True, True, "<= 0.25\nmet"),
        (None, False, None, ""),
    ],
)
def test_a_comparison_is_a_row(bar: float | None, at_most: bool, met: bool | None, text: str) -> None:
    record = {
        "part": "loss", "setting": "batch 32", "peer": "torchvision SSD", "unit": "s", "ours": [0.01, 0.03, 0.02],
        "theirs": [0.06], "ratios": [2.0], "bar": bar, "at_most": at_most, "met": met, "note": "equal",
    }  # fmt: skip
    (row,) = comparison_table([record]).rows
    assert row == ("loss: batch 32, against torchvision SSD (equal)", "20 ms", "60 ms", "2.00", text)


def test_growth_and_markdown() -> None:
    points = [
        {"part": "loss", "axis": "boxes", "size": 1, "ms_a_image": 0.5, "mib_a_image": None, "exponent": None},
        {"part": "loss", "axis": "boxes", "size": 10, "ms_a_image": 1.0, "mib_a_image": 2.0, "exponent": 0.301},
    ]
    assert as_markdown(growth_table(points)).splitlines() == [
        "| part | axis | size | time an image | memory an image | grows as size to the |",
        "| --- | --- | --- | --- | --- | --- |",
        "| loss | boxes | 1 | 0.5 ms |  |  |",
        "| loss | boxes | 10 | 1 ms | 2 MiB | 0.30 |",
    ]


def test_a_cell_of_two_lines_is_one_in_markdown() -> None:
    assert as_markdown(TextTable(("a\nb",), (("1\n2",),))) == "| a b |\n| --- |\n| 1 2 |\n"
