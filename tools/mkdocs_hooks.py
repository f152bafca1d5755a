"""Pages of the site that stand outside `docs/`: README, recipes and CONTRIBUTING, with their links made to fit."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "experiments/README.md": "experiments.md",
    "CONTRIBUTING.md": "contributing.md",
    "demo_data/README.md": "demo_data.md",
}
"""File of the repository -> page of the site."""
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(REPOSITORY / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    pages = {page: source for source, page in OUTSIDE.items()}
    source = pages.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    folder = posixpath.dirname(source)

    def linked(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[1]))
        place = OUTSIDE.get(target, target.removeprefix("docs/"))
        here = posixpath.dirname(page.file.src_uri) or "."
        return f"]({posixpath.relpath(place, here)}{match[2] or ''})"

    return LINK.sub(linked, markdown)
