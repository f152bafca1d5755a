"""Charts show the values that they are given, in colours of the page, and escape every name."""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd_lightning.visualization.bars import bar_figure, dot_figure, draw_columns
from ssd_lightning.visualization.charts import Line, draw_lines, line_colour, new_figure, pixels_of, short, thin
from ssd_lightning.visualization.confusion_plot import confusion_figure, shade
from ssd_lightning.visualization.svg import THEME, to_svg

HOSTILE = "<script>$x_1$ '&\"\n\udc80#0072b2 0.123456</script>"
NAN = math.nan


def lines_figure(*lines: Line, **settings: Any) -> Any:
    figure = new_figure(440, 250, margins_px=(44, 10, 8, 42))
    draw_lines(figure.subplots(), lines, x_label="<step>", **settings)
    return figure


def columns_figure(names: list[str], series: list[tuple[str, list[float]]]) -> Any:
    figure = new_figure(440, 250, margins_px=(44, 10, 8, 42))
    draw_columns(figure.subplots(), names, series)
    return figure


FIGURES: list[Callable[[], Any]] = [
    lambda: lines_figure(),
    lambda: lines_figure(Line(HOSTILE, [], []), Line("b", [1, 2], [NAN, NAN]), Line("c", [1], [3.0])),
    lambda: lines_figure(Line("a", range(9), [2.0] * 9, 8, with_points=True), diagonal=True, y_range=(2, 2)),
    lambda: columns_figure([], [("a", [])]),
    lambda: columns_figure(["a", "<$b$>"], [("one", [1.0, NAN]), ("two", [0.0, 2.0])]),
    lambda: bar_figure([], [("a", [])], texts=[[]]),
    lambda: bar_figure(["a", HOSTILE], [("one", [1.0, NAN]), ("two", [0, 2])], texts=[["1", "-"], ["0", "2"]]),
    lambda: dot_figure([], []),
    lambda: dot_figure(["a", HOSTILE], [("one", [0.5, NAN]), ("two", [NAN, NAN])]),
    lambda: confusion_figure(np.zeros((1, 1), np.int64), []),
    lambda: confusion_figure(np.eye(3, dtype=np.int64), [HOSTILE, "b"], title=HOSTILE),
]


@pytest.mark.parametrize("make", FIGURES)
def test_every_chart_is_an_element_for_a_page_in_light_and_dark(make: Callable[[], Any]) -> None:
    svg = to_svg(make(), HOSTILE)
    assert svg == to_svg(make(), HOSTILE)
    assert not re.search(r"font-family|clip-path|<style|https?:|<script", svg)
    root = ElementTree.fromstring(svg.encode("utf-8", "replace"))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"].startswith("<script>$x_1$")
    for element in root.iter():
        assert "nan" not in str(element.attrib.values())
        assert not re.search("#[0-9a-f]{6}", element.attrib.get("style", "")), "a colour that is none of the theme"
        assert "id" not in element.attrib or element.tag == "path"  # markers
    assert pixels_of(make()).shape[2] == 3


def test_names_are_text_and_their_letters_stay() -> None:
    svg = to_svg(bar_figure(["a$b$c", "#0072b2 0.12345"], [("AP", [1, 2])], texts=[["x", "y"]]), "names")
    assert [text.text for text in ElementTree.fromstring(svg).iter("text")] == ["a$b$c", "#0072b2 0.12345", "x", "y"]
    assert short("bananas", 6) == "banan…"
    assert short("猫猫猫a", 6) == "猫猫…"  # as wide as two letters each
    assert short("a\nb$") == r"a\nb\$"


def test_what_is_under_the_pointer_is_the_number() -> None:
    svg = ElementTree.fromstring(to_svg(columns_figure(["a", "<$b$>"], [("one", [1, 2]), ("two", [4, 0.5])]), "x"))
    titles = [title.text for title in svg.iter("title")]
    assert titles[::2] == ["a, one: 1", "a, two: 4"]
    assert titles[3] == "<$b$>, two: 0.5"


@pytest.mark.parametrize("horizontal", [True, False])
def test_bars_are_as_long_as_their_values(horizontal: bool) -> None:
    names, series = ["a", "b", "c", "d"], [("AP", [0.5, 1.0, 0.25, NAN])]
    figure = bar_figure(names, series, texts=[names]) if horizontal else columns_figure(names, series)
    side = "width" if horizontal else "height"
    lengths = np.array([getattr(patch.get_window_extent(), side) for patch in figure.axes[0].patches])
    assert lengths[1] > 100
    assert lengths / lengths[1] == pytest.approx([0.5, 1, 0.25, 0])


def test_long_lines_are_thinned_and_points_lie_where_their_values_are() -> None:
    (line,) = lines_figure(Line("a", range(1000), np.arange(1000.0))).axes[0].lines
    assert len(line.get_xdata()) == 200
    (line,) = lines_figure(Line("a", [1, 2, 3], [5, NAN, 7])).axes[0].lines
    assert line.get_xydata().tolist() == [[1, 5], [3, 7]]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=900), st.integers(1, 50))
def test_thinning_keeps_ends_count_and_range(values: list[float], points: int) -> None:
    x, y = thin(np.arange(len(values)), values, points)
    assert len(x) == len(y) == min(points, len(values))
    assert (np.diff(x) > 0).all()
    assert min(values) - 1e-6 <= y.min() <= y.max() <= max(values) + 1e-6
    if len(values) % points == 0:  # segments of one length: the mean of means is the mean
        assert y.mean() == pytest.approx(np.mean(values), abs=1e-4)


@pytest.mark.parametrize("num_classes", [3, 80])
def test_a_confusion_matrix_of_any_size(num_classes: int) -> None:
    draw, size = np.random.default_rng(0), num_classes + 1
    matrix = draw.integers(1, 3, (size, size)) * (draw.random((size, 1)) < 5 / num_classes)
    matrix[0, 0] = 0
    figure = confusion_figure(matrix, [f"{HOSTILE} {index}" for index in range(num_classes)])
    (axes,) = figure.axes
    assert len(axes.patches) == np.count_nonzero(matrix)
    assert min(patch.get_window_extent().width for patch in axes.patches) > 7
    counts = [int(text.get_text()) for text in axes.texts if text.get_text().isdigit()]
    assert sum(counts) == (matrix.sum() if num_classes <= 24 else 0)
    assert figure.get_size_inches().max() < 22


def test_the_background_comes_last_and_shares_are_those_of_the_class_as_shades() -> None:
    matrix = np.array([[0, 0, 5], [2, 8, 0], [0, 1, 9]])  # nothing, a, b
    figure = confusion_figure(matrix, ["a", "b"])
    assert [patch.get_gid() for patch in figure.axes[0].patches] == [
        "hint:true a, found as a: 8, 80% of a",
        "hint:true a, found as nothing: 2, 20% of a",
        "hint:true b, found as a: 1, 10% of b",
        "hint:true b, found as b: 9, 90% of b",
        "hint:true nothing, found as b: 5, 50% of b",
    ]
    opacities = [patch.get_alpha() for patch in figure.axes[0].patches]
    assert opacities == pytest.approx([shade(share) for share in (0.8, 0.2, 0.1, 0.9, 0.5)])
    # Shades rise, and keep clear of the middle, where no figure is readable.
    shades = np.array([shade(share) for share in np.linspace(0, 1, 101)])
    assert (np.diff(shades) > 0).all()
    assert not ((shades > 0.5) & (shades < 0.8)).any()
    assert shades[-1] == 1


def test_colours_of_the_theme_are_all_different_and_lines_are_seen_on_white() -> None:
    assert len(set(THEME.values())) == len(THEME)
    for label in (1, 2, 3, 4, 5, 20, 80):
        red, green, blue = line_colour(label)
        assert 0.3 * red + 0.59 * green + 0.11 * blue < 0.63
