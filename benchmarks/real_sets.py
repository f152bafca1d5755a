"""This project beside torchvision and YOLO11n on real data sets, each side with the same wall-clock.

    python benchmarks/real_sets.py --data-root DATA --out outputs/real_sets --weights mobilenet_v2-b0353104.pth
    python benchmarks/real_sets.py ... --only aquarium:ours,aquarium:torchvision --seeds 0 --split valid
    python benchmarks/real_sets.py ... --table

Sets: bccd, aquarium, cards, chess and aerial_maritime, folders below DATA in the layout they came in. Any other set
below DATA is added by `--own-set FOLDER OVERRIDE ...`, with overrides of the training command that say how to read it,
for example `--own-set plates data=auto`. Without `--only` and `--sets`, only the added sets are run. Every side sees
the same images and boxes, as this project's readers give them, trains on the same training split, and is scored on the
original images by one metric: score threshold .001, at most 300 detections, VOC area mAP and COCO mAP.

A side with several learning rates tries them with the first seed, and the best on the validation images (those of the
set, or a fixed tenth of its training images) goes on to the further seeds. `--split valid` is for tuning: test images
are scored for the table alone, and of a side's learning rates only the best is.

Runs come one after the other, each a process of its own that works in a clean clone of `--commit`. A run leaves a JSON
file in `OUT/results` and is not repeated while it is there, so that a call that was ended goes on. What a run printed
stands in `OUT/runs/NAME/log.txt`. `--only` and `--sides` choose; by default those of a processor run, and the
from-scratch sides of torchvision are for a GPU. YOLO11n needs `--yolo-python`, the Python of an environment of its own
that has ultralytics: it is under AGPL and never part of this project.
"""

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from real_sets_sides import SETS, SIDES, Run, write

REPOSITORY = Path(__file__).resolve().parents[1]
DEFAULT_SIDES = ("ours", "torchvision", "yolo11n")
SECONDS = {"s": 1, "min": 60, "h": 3600}
SCORES = {"map_area": "VOC area mAP", "coco_map": "COCO mAP"}


def main(command_line: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table; gives 1 if a run failed."""
    arguments = parse(command_line)
    arguments.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    if not arguments.table:
        with code_of(arguments.commit, arguments.out) as (code, commit):
            for name, side in arguments.only:
                base = first_run(arguments, name, side)
                if reason := SIDES[side].missing(base):
                    log(f"{name}:{side} is skipped: {reason}")
                    continue
                failed += not compare(base, arguments, code=code, commit=commit)
    print(table(read_results(arguments.out), split=arguments.split))
    return int(failed > 0)


def parse(command_line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common(parser)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), metavar="SET")
    parser.add_argument(
        "--own-set", nargs="+", action="append", default=[], metavar=("FOLDER", "OVERRIDE"), help="one more set"
    )
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(DEFAULT_SIDES), metavar="SIDE")
    parser.add_argument("--only", metavar="SET:SIDE,...", help="these pairs, instead of all --sets with all --sides")
    parser.add_argument("--budget", default="5min", help="wall-clock of each training, such as 90s, 5min or 1h")
    parser.add_argument("--recipe", nargs="+", default=["experiment=finetune"], help="this project's")
    parser.add_argument("--lr", type=float, nargs="+", help="the peers' learning rates, instead of each side's own")
    parser.add_argument("--yolo-python", type=Path, help="Python of an environment with ultralytics")
    parser.add_argument(
        "--table", action="store_true", help="print the table of the results that are there, run nothing"
    )
    arguments = parser.parse_args(command_line)
    try:
        arguments.seconds = seconds_of(arguments.budget)
        arguments.own_set = {name: overrides for name, *overrides in arguments.own_set}
        sets = arguments.sets or list(arguments.own_set or SETS)
        arguments.only = pairs_of(
            arguments.only, sets=sets, sides=arguments.sides, known_sets=[*SETS, *arguments.own_set]
        )
    except ValueError as error:
        parser.error(str(error))
    return arguments


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add what `real_sets_factors.py` has too."""
    parser.add_argument("--data-root", type=Path, required=True, help="folder with the sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of MobileNetV2, torchvision's file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--split", choices=["valid", "test"], default="test", help="what is scored for the table")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--commit", default="HEAD", help="what runs work with; `tree` is the working tree as it is")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: two steps, few images")


def seconds_of(budget: str) -> float:
    """Read a length of time.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h)", budget)
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"--budget is '{budget}'; it must be a time such as 90s, 5min or 1h")
    return float(found[1]) * SECONDS[found[2]]


def pairs_of(
    only: str | None, *, sets: Sequence[str], sides: Sequence[str], known_sets: Sequence[str]
) -> list[tuple[str, str]]:
    """Read `--only`: pairs of a set and a side.

    Raises:
        ValueError: there is no such set or side.
    """
    if only is None:
        return [(name, side) for name in sets for side in sides]
    pairs = []
    for pair in only.split(","):
        name, _, side = pair.partition(":")
        if name not in known_sets or side not in SIDES:
            raise ValueError(f"--only has '{pair}'; sets are {', '.join(known_sets)}, sides are {', '.join(SIDES)}")
        pairs.append((name, side))
    return pairs


@contextmanager
def code_of(commit: str, out: Path) -> Iterator[tuple[Path, str]]:
    """Give a folder with the code of a commit, and the commit: a clone below `out`, which is removed at the end."""
    git = ["git", "-C", str(REPOSITORY)]
    if commit == "tree":
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S603
        yield REPOSITORY, f"{head.stdout.strip()} and changes"
        return
    named = subprocess.run([*git, "rev-parse", f"{commit}^{{commit}}"], capture_output=True, text=True, check=True)  # noqa: S603
    found = named.stdout.strip()
    with TemporaryDirectory(dir=out, prefix="code_") as folder:
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(REPOSITORY), folder], check=True)  # noqa: S603, S607
        subprocess.run(["git", "-C", folder, "checkout", "--quiet", "--detach", found], check=True)  # noqa: S603, S607
        yield Path(folder).resolve(), found


def first_run(arguments: argparse.Namespace, name: str, side: str) -> Run:
    """Describe the run of a set and a side with the first seed."""
    return Run(
        set=name,
        side=side,
        seed=arguments.seeds[0],
        root=str((arguments.data_root / name).resolve()),
        data=arguments.own_set.get(name, []),
        folder="",
        budget=arguments.budget,
        seconds=arguments.seconds,
        recipe=arguments.recipe,
        weights=arguments.weights and str(arguments.weights.resolve()),
        yolo_python=arguments.yolo_python and str(arguments.yolo_python.absolute()),
        threads=arguments.threads,
        tiny=arguments.tiny,
    )


def compare(base: Run, arguments: argparse.Namespace, *, code: Path, commit: str) -> bool:
    """Do the runs of one set and one side; says whether all succeeded."""
    rates = SIDES[base.side].learning_rates
    if arguments.lr and len(rates) > 1:
        rates = tuple(arguments.lr)
    do = partial(measure, out=arguments.out, code=code, commit=commit)
    if len(rates) > 1:
        tried = {rate: do(replace(base, lr=rate), split="valid") for rate in rates}
        scores = {rate: record["scores"]["valid"]["map_area"] for rate, record in tried.items() if record}
        if not scores:
            return False
        rates = (max(scores, key=lambda rate: -1 if math.isnan(scores[rate]) else scores[rate]),)
        log(f"{base.set}:{base.side}: lr {rates[0]} is the best on the validation images, of {scores}")
    done = [do(replace(base, lr=rates[0], seed=seed), split=arguments.split) for seed in arguments.seeds]
    return all(done)


def measure(run: Run, *, split: str, out: Path, code: Path, commit: str) -> dict[str, Any] | None:
    """Train and score, or read what was trained or scored before; None if it failed.

    Args:
        run: what is trained.
        split: `valid` or `test`, of which the scores have to be there.
        out: folder of the results and runs.
        code: folder of the code that runs.
        commit: of that code.
    """
    run = replace(run, folder=str(out.resolve() / "runs" / run.name))
    path = out / "results" / f"{run.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = json.loads(path.read_text()) if path.is_file() else {"commit": commit, "scores": {}}
    if split not in record["scores"]:
        answer = work(run, split, code)
        if answer is None:
            return None
        record |= answer | {"scores": record["scores"] | answer["scores"]}
        write(path, record)
    return record


def work(run: Run, split: str, code: Path) -> dict[str, Any] | None:
    """Let a process of its own train and score; gives what it answers, None if it failed."""
    folder = Path(run.folder)
    folder.mkdir(parents=True, exist_ok=True)
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(code / "src"),
        "OMP_NUM_THREADS": str(run.threads),
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "WANDB_MODE": "offline",
    }
    log(f"{run.name}, {split} ...")
    begin = time.time()
    program = code / "benchmarks" / "real_sets_sides.py"
    command = [sys.executable, str(program), json.dumps(asdict(run)), split, str(begin)]
    with (folder / "log.txt").open("a") as text:
        done = subprocess.run(  # noqa: S603
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=text, stderr=text, check=False
        )
    if done.returncode or not answer.is_file():
        tail = "\n".join((folder / "log.txt").read_text(errors="replace").splitlines()[-15:])
        log(f"{run.name} failed with exit code {done.returncode}; {folder / 'log.txt'} ends:\n{tail}")
        return None
    record: dict[str, Any] = json.loads(answer.read_text())
    log(f"{run.name}: {record['scores'][split]['map_area']:.3f} after {time.time() - begin:.0f} s")
    return record


def log(text: str) -> None:
    """Tell the progress at once, also where it is read through a pipe."""
    print(text, file=sys.stderr, flush=True)


def read_results(out: Path) -> list[dict[str, Any]]:
    """Read the results of all runs."""
    return [json.loads(path.read_text()) for path in sorted((out / "results").glob("*.json"))]


def table(records: Sequence[Mapping[str, Any]], *, split: str) -> str:
    """Lay out mean and spread over seeds in Markdown, a row a set, side, budget and learning rate."""
    records = [record for record in records if split in record["scores"]]
    rows: dict[tuple[int, int, str, str], list[Mapping[str, Any]]] = {}
    sets = [*SETS, *sorted({record["set"] for record in records} - SETS.keys())]
    for record in records:
        places = sets.index(record["set"]), [*SIDES].index(record["side"])
        rows.setdefault((*places, record["budget"], str(record["lr"] or "its own")), []).append(record)
    titles = ("set", "side", "budget", "lr", "seeds", *SCORES.values(), "images seen", "commit")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for (_, _, budget, lr), runs in sorted(rows.items()):
        cells = (
            runs[0]["set"],
            runs[0]["side"],
            budget,
            lr,
            ", ".join(str(run["seed"]) for run in runs),
            *(mean_and_spread([run["scores"][split][score] for run in runs]) for score in SCORES),
            f"{statistics.mean(run['images_seen'] for run in runs):,.0f}",
            ", ".join(sorted({run["commit"][:7] for run in runs})),
        )
        lines.append(f"| {' | '.join(cells)} |")
    machines = sorted({f"{run['hardware']}, {run['threads']} thread(s)" for run in records})
    return "\n".join([*lines, "", f"Scored on the {split} images. {'; '.join(machines) or 'Nothing was run.'}"])


def mean_and_spread(values: Sequence[float]) -> str:
    """Give mean and standard deviation, as figures of a table are written: .123 +- .004."""
    spread = f" +- {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}".replace("0.", ".")


if __name__ == "__main__":
    sys.exit(main())
