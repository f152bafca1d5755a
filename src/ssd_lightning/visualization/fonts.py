"""Fonts for text in any script: the first system font with all letters, and a fallback if there is none."""

import logging
import re
import string
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from ssd_lightning.errors import one_line

log = logging.getLogger(__name__)

_BESIDE_A_NAME = string.digits + " ."
"""Characters that scores add to class names."""
_WITHOUT_SHAPES = re.compile(r"lastresort|blank|color ?emoji", re.IGNORECASE)
"""Fonts with letters that they draw as boxes, as nothing, or as colour bitmaps of one size."""
_SPECIAL = re.compile(r"bold|black|heavy|light|thin|italic|oblique|mono|serif|cond|narrow", re.IGNORECASE)


def spell(text: str) -> tuple[str, str | None]:
    """Choose the spelling and the font of a text.

    Returns:
        The drawable text in one line, and the font file; None for Pillow's own font, which has ASCII. A letter in no
        font is written as its code point, such as U+732B.
    """
    text = "".join(" " if unicodedata.category(letter) in ("Cc", "Zl", "Zp") else letter for letter in text)
    if text.isascii():
        return text, None
    file = _font_file(_key(text))
    if file is not None:
        return "".join(letter for letter in text if letter in _letters_of(file)), file
    file = next(_font_files())
    return "".join(letter if letter in _letters_of(file) else f"U+{ord(letter):04X}" for letter in text), file


def drawable_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return the drawable names, with `class 3` for a name whose letters are in no font."""
    numbered = numbered_names(tuple(class_names))
    return tuple(f"class {label}" if label in numbered else name for label, name in enumerate(class_names, start=1))


@lru_cache(maxsize=64)
def numbered_names(class_names: tuple[str, ...]) -> Mapping[int, str]:
    """Return the classes 1..C whose names cannot be drawn, and log them once: label -> name."""
    numbered = {
        label: name
        for label, name in enumerate(class_names, start=1)
        if not name.isascii() and _font_file(_key(name + _BESIDE_A_NAME)) is None
    }
    if numbered:
        log.warning(
            "no font of this system has the letters of %d class names; drawn are %s. Install one that has them, e.g. "
            "Noto Sans CJK",
            len(numbered),
            describe_numbers(numbered),
        )
    return numbered


def describe_numbers(numbered: Mapping[int, str]) -> str:
    """List the numbered classes: class 1 (a name), class 2 (another)."""
    return ", ".join(f"class {label} ({one_line(name)})" for label, name in numbered.items())


def _key(text: str) -> frozenset[str]:
    """Return the letters that a font must have, without joiners, marks of direction and variants."""
    letters = {letter for letter in text if unicodedata.category(letter) != "Cf" and not "\ufe00" <= letter <= "\ufe0f"}
    return frozenset(letters.union(string.digits) if letters.intersection(string.digits) else letters)


@lru_cache(maxsize=1024)
def _font_file(letters: frozenset[str]) -> str | None:
    for file in _font_files():
        if letters <= _letters_of(file):
            try:
                ImageFont.truetype(file, 12).getbbox("0")
            except OSError:
                continue
            return file
    return None


def _font_files() -> Iterator[str]:
    """List DejaVu Sans, which comes with matplotlib, then the system fonts, plain ones first."""
    # Importing matplotlib takes half a second, and most names are ASCII.
    from matplotlib import get_data_path
    from matplotlib.font_manager import findSystemFonts

    yield str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    files = (file for file in findSystemFonts() if not _WITHOUT_SHAPES.search(Path(file).stem))
    yield from sorted(files, key=lambda file: (_SPECIAL.search(Path(file).stem) is not None, file))


@lru_cache(maxsize=8)
def _letters_of(file: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(file).get_charmap()))
    except (OSError, RuntimeError):  # a damaged font
        return frozenset()
