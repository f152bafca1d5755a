"""Figures of matplotlib as elements of a page, whose fonts and colours they take."""

import io
import re
import warnings
from typing import Any

from markupsafe import Markup, escape

from ssd_lightning.errors import one_line

THEME = {
    "ground": "#fbfaf7", "ink": "#1e2226", "muted": "#5a6169", "grid": "#ebe7df", "raised": "#ffffff",
    "heat": "#00507d", "wrong": "#8f3900", "on-heat": "#fefefe", "s0": "#0072b2", "s1": "#d55e00", "s2": "#009e73",
    "s3": "#cc79a7", "s4": "#e69f00", "s5": "#56b4e9", "s6": "#8a7f00",
}  # fmt: skip
"""Colours of charts by their names in a page's style sheet, all different: `to_svg` replaces them by these names."""
_HINT = "hint:"
_VARIABLES = {colour: f"var(--{name})" for name, colour in THEME.items()}


def to_svg(figure: Any, description: str) -> Markup:
    """Render a figure as an element of a page: its text in the page's font, its colours those of the page's theme.

    Args:
        figure: the figure. A hint (see `set_hint`) becomes the title of its element.
        description: text for screen readers. It also determines the ids, so charts with points need different ones.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    description = one_line(description)
    figure.patch.set_visible(False)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": description}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the page has its own fonts
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(buffer, metadata=no_metadata)
    body = buffer.getvalue().partition("<svg")[2].partition(">")[2]
    body = re.sub(r"<defs>\s*<(style|clipPath).*?</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r">\s+<", "><", re.sub(r"<[^>]*>", _page_tag, body))
    while body != (body := re.sub(r"<g></g>|<g/>", "", body)):
        pass
    width, height = (round(inches * 72, 1) for inches in figure.get_size_inches())
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return Markup(f'<svg role="img" aria-label="{escape(description)}" {size}>{body}')  # noqa: S704 - is escaped


def set_hint(artist: Any, hint: str) -> None:
    """Set the text that a page shows under the pointer."""
    artist.set_gid(_HINT + one_line(hint))


def _page_tag(match: re.Match[str]) -> str:
    """Remove from a tag what a page has its own of: fonts, colours, clipping, ids but those of markers."""
    tag = " ".join(match[0].split())
    if tag.startswith("<g "):
        gid = re.search(rf'id="{_HINT}([^"]*)"', tag)
        return f"<g><title>{gid[1]}</title>" if gid else "<g/>" if tag.endswith("/>") else "<g>"
    tag = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", re.sub(r" font-family: [^;\"]*;?", "", tag))
    tag = re.sub(r' (clip-path="[^"]*"|transform="rotate\(-0 [^"]*")', "", tag).replace("xlink:href", "href")
    tag = re.sub(r"\d+\.\d\d+", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), tag)
    return re.sub(r"#[0-9a-f]{6}\b", lambda colour: _VARIABLES.get(colour[0], colour[0]), tag)
