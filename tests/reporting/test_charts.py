import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd_lightning.reporting.bars import bar_chart, column_chart, dot_chart
from ssd_lightning.reporting.charts import Chart, Series, line_chart, thin
from ssd_lightning.reporting.matrix import confusions, matrix_chart, shade

HOSTILE = "<script>alert('&\"')</script>"
NAN = math.nan


def parse(chart: Chart) -> ElementTree.Element:
    svg = ElementTree.fromstring(chart.svg)
    assert svg.tag == "svg"
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"].startswith(chart.title)
    width, height = map(float, svg.attrib["viewBox"].split()[2:])
    assert width > 50
    assert height > 10
    for element in svg.iter():  # a number that is none would break the drawing
        for name, value in element.attrib.items():
            assert "nan" not in value or name == "aria-label", (element.tag, name, value)
            assert "inf" not in value or name == "aria-label"
    return svg


def of_class(svg: ElementTree.Element, element: str, word: str) -> list[ElementTree.Element]:
    return [found for found in svg.iter(element) if word in found.attrib.get("class", "").split()]


def series(*values: float, name: str = "loss") -> Series:
    return Series(name, np.arange(len(values)), np.array(values, dtype=float))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=900), st.integers(1, 50))
def test_thinning_keeps_ends_count_and_range(values: list[float], points: int) -> None:
    x, y = thin(np.arange(len(values), dtype=float), np.array(values), points)
    assert len(x) == len(y) == min(points, len(values))
    assert (np.diff(x) > 0).all()
    assert min(values) - 1e-6 <= y.min() <= y.max() <= max(values) + 1e-6
    if len(values) % points == 0:  # stretches of the same length: the mean of means is the mean
        assert y.mean() == pytest.approx(np.mean(values), abs=1e-4)


def test_thinning_leaves_out_what_is_not_finite() -> None:
    x, y = thin(np.arange(4.0), np.array([1, NAN, np.inf, 4]))
    assert (x.tolist(), y.tolist()) == ([0, 3], [1, 4])


def test_points_lie_where_their_values_are() -> None:
    chart = line_chart("Loss", [series(0, 10, 5)], x_label="step", y_range=(0, 10))
    circles = list(parse(chart).iter("circle"))
    x, y = (np.array([float(circle.attrib[key]) for circle in circles]) for key in ("cx", "cy"))
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.02)
    assert y[0] > y[2] > y[1]  # upwards is less in a drawing
    assert y[2] == pytest.approx((y[0] + y[1]) / 2, abs=0.02)
    assert circles[1].findtext("title") == "loss: 10 at step 1"


def test_a_line_for_each_series_and_a_legend_only_for_several() -> None:
    one = line_chart("Loss", [series(1, 2)], x_label="step")
    two = line_chart("Loss", [series(1, 2), Series("val", np.arange(2), np.arange(2.0), 1)], x_label="step")
    assert (len(of_class(parse(one), "path", "line")), one.legend) == (1, [])
    assert len(of_class(parse(two), "path", "line")) == 2
    assert two.legend == [("s0", "loss"), ("s1", "val")]


@pytest.mark.parametrize("values", [[], [NAN, NAN], [3.0], [2.0, 2.0], [np.inf, 1.0]])
def test_lines_of_little_or_nothing_are_drawn(values: list[float]) -> None:
    svg = parse(line_chart("Loss", [series(*values)], x_label="step"))
    assert len(list(svg.iter("circle"))) == sum(map(math.isfinite, values))


def test_bars_are_as_long_as_their_values() -> None:
    values = [0.5, 1.0, 0.25, NAN]
    texts = [f"{value}" for value in values]
    svg = parse(bar_chart("AP", ["a", "b", HOSTILE, "d"], [("AP", values)], texts=[texts], high=1.0))
    widths = [float(bar.attrib["width"]) for bar in of_class(svg, "rect", "bar")]
    assert widths[1] > 100
    assert widths == pytest.approx([widths[1] / 2, widths[1], widths[1] / 4, 0], abs=0.02)
    assert set(texts) <= {text.text for text in svg.iter("text")}


def test_columns_are_as_high_as_their_values_and_side_by_side() -> None:
    rows = [("one", [1.0, 2.0]), ("two", [4.0, NAN])]
    chart = column_chart("AP", ["a", HOSTILE], rows)
    bars = of_class(parse(chart), "rect", "bar")
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights == pytest.approx([heights[1] / 4, heights[1], heights[1] / 2, 0], abs=0.02)
    ends = [float(bar.attrib["x"]) + float(bar.attrib["width"]) for bar in bars]
    assert all(end <= float(bar.attrib["x"]) for end, bar in zip(ends, bars[1:], strict=False))
    assert [bar.findtext("title") for bar in bars[:2]] == ["a, one: 1", "a, two: 4"]


def test_dots_lie_on_a_scale_from_0_to_1() -> None:
    svg = parse(dot_chart("AP", ["a", HOSTILE], [("one", [0.0, 1.0]), ("two", [0.5, NAN])]))
    circles, squares = of_class(svg, "circle", "point"), of_class(svg, "rect", "point")
    low, high = (float(circle.attrib["cx"]) for circle in circles)
    (square,) = squares  # a shape of its own, for those who cannot tell the colours apart
    middle = float(square.attrib["x"]) + float(square.attrib["width"]) / 2
    assert middle == pytest.approx((low + high) / 2, abs=0.02)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: bar_chart("x", [], [("a", [])], texts=[[]]),
        lambda: column_chart("x", [], [("a", [])]),
        lambda: column_chart("x", ["a"], [("a", [0])]),
        lambda: dot_chart("x", [], []),
        lambda: matrix_chart("x", np.zeros((1, 1), np.int64), []),
        lambda: matrix_chart("x", np.zeros((3, 3), np.int64), ["a", "b"]),
    ],
)
def test_charts_of_nothing_are_drawn(draw: Callable[[], Chart]) -> None:
    parse(draw())


@pytest.mark.parametrize("num_classes", [3, 20, 80])
def test_a_confusion_matrix_of_any_size(num_classes: int) -> None:
    draw = np.random.default_rng(0)
    matrix = draw.integers(0, 3, (num_classes + 1, num_classes + 1))
    matrix[0, 0] = 0
    names = [f"{HOSTILE} {index}" for index in range(num_classes)]
    chart = matrix_chart("Confusion", matrix, names)
    svg = parse(chart)
    cells = of_class(svg, "rect", "heat")
    assert len(cells) == np.count_nonzero(matrix)
    assert sum("right" in cell.attrib["class"].split() for cell in cells) == np.count_nonzero(np.diag(matrix))
    counts = [int(text.text or "") for text in of_class(svg, "text", "count")]
    assert sum(counts) == (matrix.sum() if num_classes <= 20 else 0)
    assert chart.wide
    sides = [float(cell.attrib["width"]) for cell in cells]
    assert min(sides) > 7


def test_the_background_comes_last_and_shares_are_those_of_the_class() -> None:
    matrix = np.array([[0, 0, 5], [2, 8, 0], [0, 1, 9]])  # nothing, a, b
    cells = of_class(parse(matrix_chart("Confusion", matrix, ["a", "b"])), "rect", "heat")
    assert [cell.findtext("title") for cell in cells] == [
        "true a, found as a: 8, 80% of a",
        "true a, found as nothing: 2, 20% of a",
        "true b, found as a: 1, 10% of b",
        "true b, found as b: 9, 90% of b",
        "true nothing, found as b: 5, 50% of b",
    ]
    opacities = [float(cell.attrib["fill-opacity"]) for cell in cells]
    assert opacities == pytest.approx([shade(share) for share in (0.8, 0.2, 0.1, 0.9, 0.5)], abs=0.006)


def test_shades_rise_and_keep_clear_of_the_middle_where_no_figure_is_readable() -> None:
    shades = np.array([shade(share) for share in np.linspace(0, 1, 101)])
    assert (np.diff(shades) > 0).all()
    assert not ((shades > 0.5) & (shades < 0.8)).any()
    assert shades[-1] == 1


def test_the_most_frequent_confusions_of_classes() -> None:
    matrix = np.array([[0, 7, 0, 0], [1, 5, 4, 0], [0, 9, 1, 0], [0, 0, 0, 3]])
    assert confusions(matrix, ["a", "b", "c"]) == [("b", "a", 9, 0.9), ("a", "b", 4, 0.4)]
    assert confusions(matrix, ["a", "b", "c"], most=1) == [("b", "a", 9, 0.9)]
    assert confusions(np.zeros((1, 1)), []) == []
