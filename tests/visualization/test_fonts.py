"""Class names in any script are drawn in a font that has their letters, or by number: never as something else."""

import string
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from matplotlib import font_manager

from helpers.no_warnings import no_warnings
from ssd_lightning.visualization import fonts
from ssd_lightning.visualization.boxes import fitting_font, text_size
from ssd_lightning.visualization.draw import draw_detections
from ssd_lightning.visualization.draw_matches import MatchedObject, draw_matches
from ssd_lightning.visualization.draw_samples import Sample, class_keys, draw_sample
from ssd_lightning.visualization.fonts import drawable_names, numbered_names, spell
from ssd_lightning.visualization.sweep_plots import save_sweep_plot
from ssd_lightning.visualization.training_plots import draw_class_ap, draw_confusion, draw_pr_curves

GREY = np.full((120, 200, 3), 128, dtype=np.uint8)
IN_NO_COMMON_FONT = ("猫", "고양이", "แมว")


def make_font(path: Path, letters: str) -> str:
    """Make a font that has nothing but these letters, in shapes of DejaVu Sans."""
    font = TTFont(next(fonts._font_files()))
    for table in font["cmap"].tables:
        table.cmap = {ord(letter): string.ascii_letters[ord(letter) % 52] for letter in letters}
    for record in font["name"].names:
        record.string = path.stem
    font.save(path)
    return str(path)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The fonts of the system, at first none; DejaVu Sans is always there, since matplotlib brings it."""
    files: list[str] = []
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: list(files))
    for cached in (fonts._font_file, numbered_names):
        cached.cache_clear()
    yield files
    for cached in (fonts._font_file, numbered_names):
        cached.cache_clear()


@pytest.fixture
def chinese_font(system: list[str], tmp_path: Path) -> str:
    system += [
        make_font(tmp_path / name, letters) for name, letters in (("Bold.ttf", "猫 .0123456789"), ("B.ttf", "狗"))
    ]
    system.append(make_font(tmp_path / "C.ttf", "猫狗x .0123456789"))
    (tmp_path / "A.ttf").write_bytes(b"no font")
    system.append(str(tmp_path / "A.ttf"))
    return str(tmp_path / "C.ttf")


def test_ascii_keeps_the_font_of_pillow_and_the_font_that_matplotlib_brings_has_more(system: list[str]) -> None:
    assert spell("cat 0.85") == ("cat 0.85", None)
    assert spell("a\nb") == ("a b", None)
    for name in ("Кесадилья", "größe", "γάτα", "قطة"):
        assert drawable_names([name]) == (name,)
        text, file = spell(f"{name} 0.85")
        assert text == f"{name} 0.85"
        assert Path(file or "").name == "DejaVuSans.ttf"


def test_the_plainest_font_of_the_system_that_has_all_letters(chinese_font: str) -> None:
    assert spell("猫 0.85") == ("猫 0.85", chinese_font)
    assert spell("猫\u200d\ufe0f") == ("猫", chinese_font)  # a joiner has no shape of its own
    assert drawable_names(["猫", "狗", "cat"]) == ("猫", "狗", "cat")
    assert not numbered_names(("猫", "狗"))


def test_fonts_that_draw_every_letter_as_a_box_are_none(system: list[str], tmp_path: Path) -> None:
    for name in ("LastResort.ttf", "AdobeBlank.ttf", "NotoColorEmoji.ttf"):
        system.append(make_font(tmp_path / name, "猫 .0123456789"))
    assert drawable_names(["猫"]) == ("class 1",)


@pytest.mark.parametrize("name", [*IN_NO_COMMON_FONT, "猫 и кот", "\udc80"])
def test_without_a_font_classes_are_numbered_and_reported(
    system: list[str], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    for _ in range(2):
        assert drawable_names(["cat", name, "кот"]) == ("cat", "class 2", "кот")
    (record,) = caplog.records
    shown = name if name.isprintable() else r"\udc80"
    assert f"drawn are class 2 ({shown}). Install one" in record.getMessage()
    letters = "".join(f"U+{ord(letter):04X}" if letter not in " икот" else letter for letter in name)
    assert spell(f"{name}.jpg")[0] == f"{letters}.jpg"


def drawings(names: Sequence[str], path: Path) -> list[np.ndarray]:
    """All drawings that have names of classes in them."""
    boxes = np.array([[20.0, 30.0, 80.0, 90.0]])
    of_sample = Sample(GREY, boxes / [200, 120, 200, 120], np.array([1]), np.array([False]))
    of_match = MatchedObject(
        drawable_names(names)[0], of_sample.boxes_xyxy[0], np.zeros((0, 4)), np.zeros(0), 0.3, False
    )
    recall = np.linspace(0, 1, 5)
    save_sweep_plot(path / "sweep.png", {"x": (names[0], "y")}, (0.1, 0.2), objective="mAP", title=names[0])
    return [
        draw_detections(GREY, boxes_xyxy_px=boxes, labels=[1], class_names=names, scores=[0.85]),
        draw_sample(of_sample, names, within_px=(120, 200)),
        draw_matches(GREY, [of_match]),
        draw_pr_curves([(recall, 1 - recall)] * len(names), [0.5] * len(names), names, title=names[0]),
        draw_confusion(np.eye(len(names) + 1, dtype=np.int64), names, title="title"),
        draw_class_ap([1.0], np.full((1, len(names)), 0.5), names, title="title"),
    ]


def test_every_drawing_finds_the_letters(chinese_font: str, tmp_path: Path) -> None:
    with no_warnings():  # of matplotlib, where a font lacks a letter
        drawn, other = drawings(["猫"], tmp_path), drawings(["狗"], tmp_path)
    for one, two in zip(drawn, other, strict=True):
        assert one.shape != two.shape or (one != two).any()


def test_every_drawing_numbers_what_no_font_has(system: list[str], tmp_path: Path) -> None:
    name = IN_NO_COMMON_FONT[0]
    with no_warnings():
        drawn, expected = drawings([name], tmp_path), drawings(["class 1"], tmp_path)
    for place in (0, 1, 2, 4, 5):  # the third has the name in its title too
        assert (drawn[place] == expected[place]).all()
    assert drawn[3].shape == expected[3].shape
    sample = Sample(GREY, np.zeros((1, 4)), np.array([1]), np.array([False]))
    assert [key.text for key in class_keys([sample], [name])] == ["class 1"]


def test_a_font_of_another_script_fits_its_room_too(chinese_font: str) -> None:
    assert text_size("猫" * 20, fitting_font("猫" * 20, size=20, max_width=150))[0] <= 150
