import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from ssd_lightning.reporting.svg import Axis, cut, drawing, round_ticks, slot_class, tag, tick_text, wide_range

FINITE = st.floats(-1e9, 1e9)


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="￾￿"), max_size=20))
def test_text_and_attributes_are_escaped(text: str) -> None:
    parsed = ElementTree.fromstring(tag("g", tag("title", text), aria_label=text, class_="a"))
    assert (parsed.findtext("title") or "") == text
    assert parsed.attrib == {"aria-label": text, "class": "a"}


def test_markup_stays_and_none_is_left_out() -> None:
    assert tag("g", Markup("<b>x</b>"), x=1.0, y=-0.001, width=2.345, rx=None) == (
        '<g x="1" y="0" width="2.35"><b>x</b></g>'
    )


@given(st.floats(-1e4, 1e4), st.floats(0.01, 1e6), st.integers(2, 9))
def test_ticks_are_round_evenly_spaced_and_within_the_range(low: float, length: float, most: int) -> None:
    high = low + length
    ticks = round_ticks(low, high, most)
    assert len(ticks) <= most + 1
    assert all(low - 1e-6 * length <= tick <= high + 1e-6 * length for tick in ticks)
    if len(ticks) > 1:
        step = (ticks[-1] - ticks[0]) / (len(ticks) - 1)
        digit = float(f"{step:.6e}".partition("e")[0])
        assert digit == pytest.approx(round(digit), rel=1e-5)
        assert round(digit) in (1, 2, 5, 10)
        # A finer step of the same kind would give too many.
        assert length / step * 2 > most * 0.8


def test_known_ticks() -> None:
    assert round_ticks(0, 1, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert round_ticks(3, 27, 5) == [5, 10, 15, 20, 25]


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_no_ticks_without_a_range(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="no ticks between"):
        round_ticks(*ends)


@given(FINITE)
def test_equal_values_get_a_range_around_them(value: float) -> None:
    low, high = wide_range(value, value)
    assert low < value < high


@given(FINITE, st.floats(1e-3, 1e6), st.floats(0, 1))
def test_an_axis_keeps_proportions(low: float, length: float, share: float) -> None:
    axis = Axis(0.0, length, 200.0, 20.0)
    assert axis.place(0) == 200
    assert axis.place(length) == pytest.approx(20)
    assert axis.place(share * length) == pytest.approx(200 - 180 * share)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (0.1 + 0.2, "0.3"), (9000, "9000"), (20_000, "20k"), (3e6, "3M"), (3e-5, "3e-5")],
)
def test_ticks_are_short(value: float, text: str) -> None:
    assert tick_text(value) == text


def test_names_are_cut_and_colours_come_again_dashed() -> None:
    assert (cut("banana", 6), cut("bananas", 6)) == ("banana", "banan…")
    assert (cut("猫猫猫", 6), cut("猫猫猫a", 6)) == ("猫猫猫", "猫猫…")  # as wide as two letters each
    assert [slot_class(slot) for slot in (0, 6, 7)] == ["s0", "s6", "s0 dashed"]


def test_a_drawing_says_what_it_shows() -> None:
    svg = ElementTree.fromstring(drawing('a "title"', 30, 20, fixed=True))
    assert svg.attrib == {
        "role": "img", "aria-label": 'a "title"', "viewBox": "0 0 30 20", "class": "fixed", "width": "30",
        "height": "20",
    }  # fmt: skip
