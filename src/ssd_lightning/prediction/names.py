"""File names for what is written: safe on any system, and each one once."""

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar

MOST_BYTES = 180
"""File systems end names at 255 bytes; a number and a suffix are added."""


class HasStem(Hashable, Protocol):
    """A path, or a source."""

    @property
    def stem(self) -> str:
        """What its outputs are called after."""
        ...


class UniqueNames:
    """Gives out names; a second one of the same kind gets a number."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next_number: dict[str, int] = {}

    def take(self, wanted: str) -> str:
        """Give `wanted` without what no file name can have, with a number if it is taken; case makes no difference."""
        stem = name = clean_name(wanted)
        # Counting on from the last number: a thousand folders may each have an `image.jpg`.
        number = self._next_number.get(stem.casefold(), 2)
        while name.casefold() in self._taken:
            name, number = f"{stem}_{number}", number + 1
        self._next_number[stem.casefold()] = number
        self._taken.add(name.casefold())
        return name


def clean_name(wanted: str) -> str:
    """Replace what breaks lines, terminals, paths or encodings by `_`, and shorten what is too long."""
    kept = "".join(letter if letter.isprintable() and letter not in "/\\" else "_" for letter in wanted)
    stem = kept.encode()[:MOST_BYTES].decode(errors="ignore").strip()
    return stem if stem.strip(".") else "image"  # of dots alone, a suffix becomes the name


Thing = TypeVar("Thing", bound=HasStem)


def output_names(things: Sequence[Thing]) -> dict[Thing, str]:
    """Name what is written for each, without suffix; those of one name from different folders get a number."""
    names = UniqueNames()
    return {thing: names.take(thing.stem) for thing in things}


def drawn_name(stem: str, *, is_video: bool) -> str:
    """Give the file name of an annotated copy."""
    return stem + (".mp4" if is_video else ".jpg")
