import pytest

from ssd_lightning.visualization.tables import TextTable, print_table, quantity, spread


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.01234, "s", "12.3 ms"),
        (2.345, "s", "2.35 s"),
        (1234.5, "images/s", "1234 images/s"),
        (0.5, "MiB", "0.5 MiB"),
        (3.21e14, "FLOP/s", "321 TFLOP/s"),
    ],
)
def test_quantities(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_spread_shows_quartiles_where_there_are_any() -> None:
    assert spread([1.0, 2.0]) == "1.50"
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == "3.00 (2.00-4.00)"


def test_cells_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(TextTable(("name",), [("[bold]x",), (), ("y",)]))
    assert "[bold]x" in capsys.readouterr().out
