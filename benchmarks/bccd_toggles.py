"""What each part of the recipe `bccd_modern` brings against `bccd_paper`, at the same budget.

    python benchmarks/bccd_toggles.py --data-root $BCCD --out outputs/bccd_toggles

Every row trains on all 292 pictures of `trainval` by this project's training command, without a validation, and its
last weights are scored on the 72 of `test`. Each run leaves a JSON file in `--out` and is not repeated while it is
there, so that `--rows`, `--seeds` and a second process can share the work.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import torch
from bccd_runs import result_of, table, train_ours

PAPER = "experiment=bccd_paper"
ROWS = {
    "paper": [PAPER],
    "+ EMA": [PAPER, "callbacks=[default,ema]", "callbacks.ema.decay=0.98"],
    "+ cosine": [PAPER, "scheduler=cosine", "scheduler.warmup_steps=0"],
    "+ warm-up": [PAPER, "scheduler.warmup_steps=36"],
    "+ GIoU": [PAPER, "loss.box_loss=giou", "loss.loc_weight=3.0"],
    "+ mosaic with early close": [PAPER, "data.mosaic_probability=0.5", "data.mosaic_epochs=7"],
    "all: modern": ["experiment=bccd_modern"],
}


def main() -> None:
    """Run what is missing and print the table."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # of the training command
    results: dict[str, list[dict[str, Any]]] = {row: [] for row in arguments.rows}
    for seed in arguments.seeds:
        for row in arguments.rows:
            name = "".join(letter for letter in row if letter.isalnum())
            path = arguments.out / f"{name}{arguments.label}_e{arguments.epochs}_s{seed}.json"
            results[row].append(result_of(path, lambda: measure(arguments, row, seed, path)))  # noqa: B023
    print(table(results, f"{arguments.epochs} epochs"))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="BCCD in VOC layout")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results and runs")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--overrides", nargs="*", default=[], help="of every row, after its own")
    parser.add_argument("--label", default="", help="added to the names of the result files")
    return parser.parse_args()


def measure(arguments: argparse.Namespace, row: str, seed: int, path: Path) -> dict[str, Any]:
    """Train one row with one seed and score it."""
    start = time.perf_counter()
    overrides = [*ROWS[row], f"trainer.max_epochs={arguments.epochs}", *arguments.overrides]
    scores = train_ours(overrides, path.with_suffix(""), data_root=arguments.data_root, seed=seed)
    return {**scores, "overrides": overrides, "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    main()
