"""Check where a page may be written: it may only replace an earlier page of the same runs."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ssd_lightning.errors import ConfigurationError

SUFFIX = ".html"
HEAD_BYTES = 65_536
"""Size that fits the marks of more runs than a page can compare."""
MARK = re.compile(rb'<meta name="generator" content="ssd_lightning report" data-runs="([0-9a-f ]+)">')
"""The mark that `page.html.j2` writes into the head of every page."""


def runs_mark(directories: Iterable[Path]) -> str:
    """Return the mark that identifies a page of these runs: a hash for each directory, without its name."""
    names = {os.fsencode(path.resolve()) for path in directories}
    return " ".join(sorted(hashlib.blake2b(name, digest_size=8).hexdigest() for name in names))


def require_own_page(output: Path, directories: Iterable[Path]) -> None:
    """Check that writing a page does not destroy another file.

    A page of one run may be replaced by a newer one of that run. A page of several runs may also be replaced by one of
    these and more runs, since sweeps grow.

    Raises:
        ConfigurationError: the suffix is not that of a page, or another file or a page of other runs exists there.
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
        raise ConfigurationError(f"output={output} already exists and is not a page of this command; give another name")
    before, now = set(mark[1].decode().split()), set(runs_mark(directories).split())
    has_grown = len(before) > 1 and before < now
    if before != now and not has_grown:
        raise ConfigurationError(
            f"output={output} is a page of other runs; give another name, or delete it if it is not needed"
        )
