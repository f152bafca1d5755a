"""What the pages tell people: commands that exist, links that lead somewhere, and all of it tried (slowly)."""

import re
import textwrap

import pytest

from docs_commands import PAGES, REPOSITORY, Line, all_lines
from ssd_lightning.configs import check_overrides
from ssd_lightning.overrides import CONFIG_PATH_FLAGS, flag_value
from ssd_lightning.sweeping.plan import plan_sweep

LINES = all_lines()


def test_the_pages_have_commands() -> None:
    assert len(LINES) > 40
    assert {line.command for line in LINES} >= {"train", "evaluate", "predict", "report", "export", "demo", "show"}


@pytest.mark.parametrize("line", LINES, ids=str)
def test_every_word_of_a_command_exists(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [line.command, *line.words])
    if flag_value(CONFIG_PATH_FLAGS | {"--config-dir"}):
        pytest.skip("it brings a configuration of its own; the slow test runs it")
    words = [word for word in line.words if "=" in word and not word.startswith("-") and "=NAME" not in word]
    if line.command == "train" and (
        "--multirun" in line.words or any(w.startswith(("seeds=", "sweep=")) for w in words)
    ):
        words = [word for word in plan_sweep(line.words, words) if "=" in word]
    check_overrides(line.command, words)


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    folder = (REPOSITORY / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", (REPOSITORY / page).read_text()):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        file = folder / path if path else REPOSITORY / page
        assert file.exists(), f"{page} links to {target}"
        if anchor:
            titles = re.findall(r"(?m)^#+ (.+)$", file.read_text())
            assert anchor in {anchor_of(title) for title in titles}, f"{page} links to {target}"


def anchor_of(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_python_on_the_pages_is_python(page: str) -> None:
    for block in re.findall(r"(?s)```python\n(.*?)```", (REPOSITORY / page).read_text()):
        compile(textwrap.dedent(block), page, "exec")
