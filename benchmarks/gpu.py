"""What this project claims for a GPU, measured on one CUDA card without a network, within six minutes.

    python benchmarks/gpu.py --out FOLDER                 # also: make gpu
    python benchmarks/gpu.py --out FOLDER --only step,more --seconds 120
    python benchmarks/gpu.py --out FOLDER --rehearse      # the same code on the processor, with tiny numbers

Parts, in this order: `tests` (those that need a GPU), `step` (a training step beside torchvision's), `parts` (loss,
post-processing, prediction), `training` (real runs from JPEG files), `more` (CUDA graphs, larger batches). Each is a
process of its own with its own limit; one that fails or hangs is ended with all that it started, and the next begins.

FOLDER gets `gpu.md` and `gpu.json`, rewritten with every result, `rows.jsonl`, the results one a line, and
`log.txt`. Data and weights are looked for in `.gpu/`; a rehearsal without them draws a toy data set.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path[:0] = [str(HERE), str(REPOSITORY / "src")]

from results import as_markdown, comparison_table, growth_table

from ssd_lightning.visualization.tables import TextTable

PARTS = {"tests": 50, "step": 80, "parts": 47, "training": 128, "more": 55}
"""Seconds of each part on an H200, a dozen of them to start each. What one leaves goes to the next."""
REHEARSAL_FACTOR = 6
"""A processor that is shared may need more of them, for less."""
KINDS = ("comparisons", "growth", "facts", "tests", "errors")


def main() -> int:
    """Run the parts; gives 1 if one of them failed."""
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the part in work ends too
    arguments.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        settings = {
            "rehearse": arguments.rehearse,
            "data": str(arguments.data.resolve()),
            "weights": str(arguments.weights.resolve()),
            "seed": arguments.seed,
            "rows": str(arguments.out.resolve() / "rows.jsonl"),
            "scratch": scratch,
        }
        commands = {
            part: [sys.executable, "-u", str(HERE / "gpu_parts.py"), part, json.dumps(settings)]
            for part in arguments.only
        }
        parts = run_parts(commands, header_of(arguments), arguments.out, seconds=arguments.seconds)
    print(f"figures: {arguments.out / 'gpu.json'}, as tables in {arguments.out / 'gpu.md'}")
    return int(any(part["status"] != "finished" for part in parts.values()))


def parse(command_line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--only", type=part_names, default=list(PARTS), metavar="PART,...", help=", ".join(PARTS))
    parser.add_argument("--seconds", type=float, help=f"for all parts; default: {sum(PARTS.values())} for all five")
    parser.add_argument("--rehearse", action="store_true", help="on the processor, with tiny numbers")
    parser.add_argument("--data", type=Path, default=REPOSITORY / ".gpu" / "data" / "aquarium", help="in YOLO layout")
    parser.add_argument("--weights", type=Path, default=REPOSITORY / ".gpu" / "weights", help="folder with *.pth")
    parser.add_argument("--commit", default=os.environ.get("GIT_COMMIT"), help="where there is no git folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(command_line)
    if arguments.seconds is None:
        arguments.seconds = sum(PARTS[part] for part in arguments.only) * (
            REHEARSAL_FACTOR if arguments.rehearse else 1
        )
    if arguments.seconds <= 0:
        parser.error(f"--seconds is {arguments.seconds:g}; it must be more than 0")
    return arguments


def part_names(text: str) -> list[str]:
    """Read `--only`; parts run in their own order.

    Raises:
        ArgumentTypeError: there is no such part.
    """
    asked = text.split(",")
    unknown = [name for name in asked if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no part '{unknown[0]}'; there is {', '.join(PARTS)}")
    return [part for part in PARTS if part in asked]


def header_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Say what can be said before torch is loaded; the parts add versions and machine."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "seed": arguments.seed,
        "rehearsal": arguments.rehearse,
        "commit_given": arguments.commit,
        "card_and_driver": card_and_driver(),
    }


def card_and_driver() -> str | None:
    """Ask the driver's own program for the card, its memory and the driver's version."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None


def run_parts(
    commands: Mapping[str, Sequence[str]], header: Mapping[str, Any], folder: Path, *, seconds: float
) -> dict[str, dict[str, Any]]:
    """Run one part after the other, and write down after each and within what there is.

    Args:
        commands: of the parts.
        header: of the report.
        folder: of the results; `rows.jsonl` there is started from scratch.
        seconds: for all of them.

    Returns:
        `status`, `seconds` and, where it did not finish, the last lines of the log of each part.
    """
    (folder / "rows.jsonl").write_text("")
    shares = [PARTS[part] for part in commands]
    ends = [time.monotonic() + seconds * share / sum(shares) for share in accumulate(shares)]
    done: dict[str, dict[str, Any]] = {}
    with (folder / "log.txt").open("w+") as log:
        for (part, command), end in zip(commands.items(), ends, strict=True):
            print(f"{part} ...", file=sys.stderr, flush=True)
            log.write(f"\n===== {part}\n")
            log.flush()
            begin, position = time.monotonic(), log.tell()
            status = run_part(command, log, limit=end - begin, on_tick=lambda: write_report(folder, header, done))
            done[part] = {"status": status, "seconds": round(time.monotonic() - begin, 1)}
            if status != "finished":
                log.seek(position)
                done[part]["log"] = log.read().splitlines()[-30:]
            log.seek(0, os.SEEK_END)
            write_report(folder, header, done)
            print(f"{part}: {status} after {done[part]['seconds']:.0f} s", file=sys.stderr, flush=True)
    return done


def run_part(command: Sequence[str], log: Any, *, limit: float, on_tick: Callable[[], object]) -> str:
    """Run a command in a process group of its own, and end all of the group with it.

    Args:
        command: it gets one more argument, the time of the clock at which it is killed.
        log: an open file for all that it prints.
        limit: it is killed after so many seconds.
        on_tick: is called every second.

    Returns:
        How it ended: `finished`, or why not.
    """
    folders = [str(REPOSITORY / "src"), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH")]
    path = os.pathsep.join(filter(None, folders))
    environment = {**os.environ, "PYTHONPATH": path, "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "offline"}
    process = subprocess.Popen(  # noqa: S603
        [*command, str(time.time() + limit)], cwd=REPOSITORY, env=environment,
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + limit
    try:
        while (left := end - time.monotonic()) > 0:
            try:
                code = process.wait(min(1.0, left))
            except subprocess.TimeoutExpired:
                on_tick()
            else:
                return "finished" if code == 0 else f"failed with exit code {code}"
        return f"killed after its {limit:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # data workers and compilers of a part that ended, too
        process.wait()


def write_report(folder: Path, header: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Write `gpu.json` and `gpu.md` from the rows that there are."""
    record: dict[str, Any] = {"run": {}, "parts": dict(parts), **{kind: [] for kind in KINDS}}
    for line in (folder / "rows.jsonl").read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # its writer was killed in the middle of it
        if row["kind"] == "run":
            record["run"] = row["row"]
        else:
            record[row["kind"]].append({"in": row["part"], **row["row"]})
    record["run"] |= header
    record["run"]["git_commit"] = record["run"].get("git_commit") or header.get("commit_given")
    for name, text in (("gpu.json", json.dumps(record, indent=2) + "\n"), ("gpu.md", as_page(record))):
        partial = folder / f".{name}.partial"
        partial.write_text(text)
        partial.replace(folder / name)


def as_page(record: Mapping[str, Any]) -> str:
    """Lay the record out in Markdown."""
    run = record["run"]
    versions = ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items() if version)
    lines = [
        f"{run.get('card_and_driver') or 'no card'}; CUDA {run.get('cuda')}; {versions}; commit {run['git_commit']}; "
        f"seed {run['seed']}; {run['started']}",
        f"`{run['command']}`",
    ]
    if run["rehearsal"]:
        lines.insert(0, "**A rehearsal on the processor: none of these numbers says anything.**")
    outcomes = [test["outcome"] for test in record["tests"]]
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in sorted(set(outcomes)))
    tables = [
        TextTable(
            ("part", "status", "time"),
            tuple((name, part["status"], f"{part['seconds']:.0f} s") for name, part in record["parts"].items()),
        ),
        comparison_table(record["comparisons"]),
        growth_table(record["growth"]),
        TextTable(
            ("what", "value"),
            tuple((fact["what"], f"{fact['value']:.4g} {fact['unit']}".strip()) for fact in record["facts"]),
        ),
        TextTable(
            ("what failed", "how"),
            tuple((name, part["log"][-1]) for name, part in record["parts"].items() if part.get("log"))
            + tuple((error["what"], error["error"]) for error in record["errors"])
            + tuple((test["test"], test["message"]) for test in record["tests"] if test["outcome"] == "failed"),
        ),
    ]
    texts = [
        *lines,
        *([f"Tests: {counts}."] if counts else []),
        *(as_markdown(table) for table in tables if table.rows),
    ]
    return "\n\n".join(text.strip() for text in texts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
