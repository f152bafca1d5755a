import pytest
from results import Comparison, Point, as_markdown, comparison_table, growth_table


@pytest.mark.parametrize(("unit", "ratio"), [("s", 2.0), ("MiB", 2.0), ("images/s", 0.5)])
def test_what_better_means(unit: str, ratio: float) -> None:
    assert Comparison("p", "s", "q", (1.0,), (2.0,), unit).ratios == [ratio]


def test_the_ratio_is_the_median_of_pairs_and_not_of_sides() -> None:
    """A disturbance that lasts a pair hits both of its sides."""
    record = Comparison("p", "s", "q", (1.0, 10.0, 1.0), (3.0, 20.0, 3.0)).as_record()
    assert (record["ratios"], record["ratio"]) == ([2.0, 3.0, 3.0], 3.0)


@pytest.mark.parametrize(
    ("axis", "sizes", "costs", "exponent"),
    [
        ("boxes", (10, 100), (10.0, 1000.0), 2),
        ("classes", (1, 4), (3.0, 3.0), 0),
        ("batch", (1, 16), (5.0, 5.0), 1),  # a batch costs as much more as it is larger
        ("input", (256, 512), (1.0, 4.0), 1),  # twice the side is four times the pixels
        ("boxes", (0, 10), (1.0, 2.0), None),
    ],
)
def test_exponents_of_known_growth(
    axis: str, sizes: tuple[int, int], costs: tuple[float, float], exponent: float | None
) -> None:
    before, point = (Point("p", axis, size, cost) for size, cost in zip(sizes, costs, strict=True))
    assert point.exponent(before) == (exponent if exponent is None else pytest.approx(exponent))
    assert point.exponent(None) is None
    assert point.exponent(Point("another", axis, 1, 1.0)) is None


def test_tables() -> None:
    record = Comparison("loss", "batch 32", "torchvision", (0.02,), (0.06,), note="equal").as_record()
    assert comparison_table([record]).rows == (
        ("loss: batch 32, against torchvision (equal)", "20 ms", "60 ms", "3.00"),
    )
    first, second = Point("loss", "boxes", 1, 0.5), Point("loss", "boxes", 10, 1.0, 2.0)
    assert as_markdown(growth_table([first.as_record(None), second.as_record(first)])).splitlines()[2:] == [
        "| loss | boxes | 1 | 0.5 ms |  |  |",
        "| loss | boxes | 10 | 1 ms | 2 MiB | 0.30 |",
    ]
