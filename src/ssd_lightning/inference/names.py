"""File names for outputs: safe on any system, and unique."""

import re
from collections.abc import Sequence

from ssd_lightning.inference.sources import Source

MOST_BYTES = 180
"""File systems limit names to 255 bytes. A number and a suffix are added."""
SEPARATORS = frozenset('/\\<>:"|?*')
"""Characters that no name can have: `/`, and those that Windows and its file systems refuse."""
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""Names of devices on Windows, also before a suffix."""


class UniqueNames:
    """Makes names unique by adding a number."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next_number: dict[str, int] = {}

    def take(self, wanted: str) -> str:
        """Return `wanted` as a valid file name, with a number if it is taken. Case is ignored."""
        stem = name = clean_name(wanted)
        # Continue from the last number: a thousand folders may each have an `image.jpg`.
        number = self._next_number.get(stem.casefold(), 2)
        while name.casefold() in self._taken:
            name, number = f"{stem}_{number}", number + 1
        self._next_number[stem.casefold()] = number
        self._taken.add(name.casefold())
        return name


def clean_name(wanted: str) -> str:
    """Replace unprintable characters and `SEPARATORS` by `_`, shorten the name, and avoid those of devices."""
    kept = "".join(letter if letter.isprintable() and letter not in SEPARATORS else "_" for letter in wanted)
    stem = kept.encode()[:MOST_BYTES].decode(errors="ignore").strip()
    if not stem.strip("."):
        return "image"  # in a name of only dots, the suffix would become the name
    return f"_{stem}" if DEVICES.match(stem) else stem


def output_names(sources: Sequence[Source]) -> dict[Source, str]:
    """Return a unique output name for each, without suffix. Equal names from different folders get a number."""
    names = UniqueNames()
    return {source: names.take(source.stem) for source in sources}


def drawn_name(stem: str, *, is_video: bool) -> str:
    """Return the file name of an annotated copy."""
    return stem + (".mp4" if is_video else ".jpg")
