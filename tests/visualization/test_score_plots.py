"""Plots of scores are drawn for any number of classes and validations, and show what they are given."""

import numpy as np
import pytest

from ssd_lightning.visualization.figures import MOST_NAMED, line_colour, literal, named_lines
from ssd_lightning.visualization.score_plots import PRLine, draw_class_ap, draw_confusion, draw_pr_curves

ODD = ("$x_1$", "a\nb\udc80", "é" * 90, "<b>&amp;")


def names(count: int) -> list[str]:
    return [ODD[index] if index < len(ODD) else f"class {index}" for index in range(count)]


def has(image: np.ndarray, colour: tuple[float, ...], *, pixels: int = 60) -> bool:
    near = np.abs(image.astype(int) - np.array(colour) * 255).max(axis=-1) < 12
    return bool(near.sum() > pixels)


@pytest.mark.parametrize("count", [1, 4, 80])
def test_pr_curves_of_the_best_and_the_worst_are_coloured(count: int) -> None:
    recall = np.linspace(0.01, 0.9, 50)
    lines = [
        PRLine(name, recall, 1 - recall * index / max(1, count), 1 - index / count)
        for index, name in enumerate(names(count))
    ]
    image = draw_pr_curves(lines, title="title")
    assert image.dtype == np.uint8
    assert image.shape == (550, 902, 3)
    assert has(image, line_colour(1))
    assert has(image, line_colour(count))


def test_classes_without_detections_or_objects_are_drawn_as_nothing() -> None:
    empty = np.zeros(0)
    lines = [PRLine("found nothing", empty, empty, 0.0), PRLine("no objects", empty, empty, float("nan"))]
    assert draw_pr_curves(lines, title="").shape == (550, 902, 3)


@pytest.mark.parametrize("count", [1, 3, 24, 25, 80])
def test_confusion_is_dark_where_the_counts_are(count: int) -> None:
    counts = np.diag([0, *range(1, count + 1)])
    drawn = draw_confusion(counts, names(count), title="title")
    nothing = draw_confusion(np.zeros_like(counts), names(count), title="title")
    assert drawn.shape == nothing.shape
    dark = (drawn.max(axis=-1) < 110).sum() - (nothing.max(axis=-1) < 110).sum()
    side = drawn.shape[0] / (count + 1)
    assert dark > 0.2 * count * side**2 * 0.2
    assert max(drawn.shape) < 2400


@pytest.mark.parametrize("count", [1, 4, 80])
@pytest.mark.parametrize("validations", [0, 1, 30])
def test_ap_is_drawn_over_the_epochs(count: int, validations: int) -> None:
    values = np.tile(np.linspace(0.05, 0.95, count), (validations, 1))
    values[:, 0] = np.nan
    image = draw_class_ap(range(1, validations + 1), values, names(count), title="title")
    assert image.shape == (550, 902, 3)
    if validations > 1 and count > 1:
        assert has(image, line_colour(count))


def test_few_lines_are_all_named_of_many_the_best_and_the_worst() -> None:
    assert named_lines([0.1, float("nan"), 0.3]) == [2, 0]
    chosen = named_lines([index / 80 for index in range(80)])
    assert chosen == [79, 78, 77, 76, 75, 4, 3, 2, 1, 0]
    assert len(chosen) == MOST_NAMED


def test_names_are_text_and_no_mathematics() -> None:
    assert literal("$x$") == r"\$x\$"
    assert literal("a\nb\udc80") == "a bU+DC80"
    assert len(literal("x" * 99)) == 28


@pytest.mark.parametrize("label", [1, 2, 3, 4, 5, 20, 80])
def test_lines_are_seen_on_white(label: int) -> None:
    red, green, blue = line_colour(label)
    assert 0.3 * red + 0.59 * green + 0.11 * blue < 0.63
