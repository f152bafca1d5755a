"""`python -m ssd_lightning` or `ssd`: lists the commands, and starts one: `ssd train experiment=finetune`."""

import ast
import runpy
import sys
from pathlib import Path

from ssd_lightning.errors import did_you_mean

COMMANDS = ("train", "evaluate", "predict", "export", "convert", "doctor", "report", "show", "demo")


def main() -> None:
    """Start the command that is named first, as `python -m ssd_lightning.COMMAND` does; list all without one."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(overview())
        return
    if name not in COMMANDS:
        sys.exit(f"there is no command '{name}'{did_you_mean(name, COMMANDS, cutoff=0.6)}\n\n{overview()}")
    del sys.argv[1]
    runpy.run_module(f"ssd_lightning.{name}", run_name="__main__", alter_sys=True)


def overview() -> str:
    """List the commands with what each does: the first lines of their modules, which are not imported."""
    lines = [f"  {name:10}{_docstring(name).partition(': ')[2].splitlines()[0].rstrip('.')}" for name in COMMANDS]
    return "\n".join(
        [
            "usage: ssd COMMAND key=value ...    or    python -m ssd_lightning.COMMAND key=value ...",
            "",
            *lines,
            "",
            "`ssd COMMAND --help` lists the settings of a command.",
        ]
    )


def _docstring(name: str) -> str:
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


if __name__ == "__main__":
    main()
