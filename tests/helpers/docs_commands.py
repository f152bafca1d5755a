"""The command lines that README and docs tell people to type."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DOCS = sorted(f"docs/{path.name}" for path in REPOSITORY.glob("docs/*.md"))
PAGES = ("README.md", "CONTRIBUTING.md", "experiments/README.md", *DOCS)
COMMAND = "python -m ssd_lightning."


@dataclass(frozen=True)
class Line:
    """A command line and the page it stands on."""

    page: str
    text: str

    @property
    def command(self) -> str:
        return self.text.removeprefix(COMMAND).split()[0]

    @property
    def overrides(self) -> list[str]:
        return shlex.split(self.text, comments=True)[3:]

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def all_lines() -> list[Line]:
    """Find the commands of all pages, in code blocks, behind a console's sign and in table cells."""
    found: dict[str, Line] = {}
    for page in PAGES:
        text = (REPOSITORY / page).read_text().replace("\\\n", " ")
        for match in re.finditer(rf"(?m)(?:^ *|\| `|`){re.escape(COMMAND)}[^`\n]+", text):
            command = re.sub(r" +", " ", match.group().lstrip(" |`")).strip()
            found.setdefault(command, Line(page, command))
    return list(found.values())
