"""Where a page may be written: over nothing but an earlier page of the same runs."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ssd_lightning.errors import ConfigurationError

SUFFIX = ".html"
HEAD_BYTES = 65_536
"""Hold the mark of more runs than a page can compare."""
MARK = re.compile(rb'<meta name="generator" content="ssd_lightning report" data-runs="([0-9a-f ]+)">')
"""What `page.html.j2` writes into the head of every page."""


def runs_mark(directories: Iterable[Path]) -> str:
    """Give the mark by which a page is known as one of these runs: a hash for each directory, without its name."""
    names = {os.fsencode(path.resolve()) for path in directories}
    return " ".join(sorted(hashlib.blake2b(name, digest_size=8).hexdigest() for name in names))


def require_own_page(output: Path, directories: Iterable[Path]) -> None:
    """Make sure that writing a page costs no other file.

    A page of one run gives way to a newer one of that run; one of several also to one of these and more, for sweeps
    grow.

    Args:
        output: where the page shall be written.
        directories: of its runs.

    Raises:
        ConfigurationError: the name is no page's, or another file or a page of other runs lies there.
    """
    if output.suffix.lower() != SUFFIX:
        raise ConfigurationError(f"output={output} does not end in {SUFFIX}, and what is written is an HTML page")
    if not os.path.isfile(output):
        return
    try:
        with output.open("rb") as file:
            mark = MARK.search(file.read(HEAD_BYTES))
    except OSError:
        mark = None
    if mark is None:
        raise ConfigurationError(f"output={output} is there already and is no page of this command; give another name")
    before, now = set(mark[1].decode().split()), set(runs_mark(directories).split())
    has_grown = len(before) > 1 and before < now
    if before != now and not has_grown:
        raise ConfigurationError(
            f"output={output} is a page of other runs; give another name, or delete it if it is not needed"
        )
