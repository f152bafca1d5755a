"""This project's SSD against torchvision's on blood cells (BCCD), both from random weights, by our VOC metric.

    python benchmarks/bccd_against_torchvision.py --data-root $BCCD --out outputs/bccd_duel
    python benchmarks/bccd_against_torchvision.py --data-root $BCCD --out outputs/bccd_duel --network ssd300_vgg16

Both sides train on all 292 pictures of `trainval` for the same number of epochs with the same batch size and seeds,
without a validation, and their last weights are scored on the 72 of `test`. It is recipe against recipe.
`peer_torchvision.py` trains torchvision's network with its own priors and augmentation in a plain loop; it is scored
with its own and with our post-processing, and the better of the two counts. This project runs its training command
with the recipe below. Each run leaves a JSON file in `--out` and is not repeated while it is there, so that `--side`,
`--seeds` and a second process can share the work. `--max-steps` is for a smoke test.
"""

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from bccd_runs import open_split, result_of, score, table, train_ours
from peer_torchvision import PEERS, torchvision_detector, train_torchvision

RECIPES = {
    "ssdlite320_mobilenet_v3_large": ["experiment=bccd_ssdlite320_mobilenet_v3"],
    "ssd300_vgg16": ["experiment=bccd_ssd300_vgg16_bn"],
}
OUR_POSTPROCESSING = {"score_thresh": 0.01, "nms_thresh": 0.45, "topk_candidates": 400, "detections_per_img": 200}


def main() -> None:
    """Run what is missing and print the table."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # of the training command
    measures = {"torchvision": measure_peer, "ours": measure_ours}
    if arguments.side:
        measures = {arguments.side: measures[arguments.side]}
    results = {
        f"{side}, {arguments.network}": [
            result_of(path_of(arguments, side, seed), lambda: measure(arguments, seed))  # noqa: B023
            for seed in arguments.seeds
        ]
        for side, measure in measures.items()
    }
    print(f"\n{arguments.epochs} epochs of batches of {arguments.batch_size}, {arguments.threads} thread(s), ", end="")
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}\n")
    print(table(results, "side"))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="BCCD in VOC layout")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results and of our runs")
    parser.add_argument("--network", choices=list(PEERS), default="ssdlite320_mobilenet_v3_large")
    parser.add_argument("--side", choices=["torchvision", "ours"], help="only this one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer-optimizer", choices=["reference", "adamw"], default="adamw")
    parser.add_argument("--peer-lr", type=float, help="default: the published one, or 0.002 for adamw")
    parser.add_argument("--max-steps", type=int, help="end each run after so many steps")
    parser.add_argument("--overrides", nargs="*", default=[], help="of our recipe")
    parser.add_argument("--label", default="", help="added to the names of the result files")
    return parser.parse_args()


def path_of(arguments: argparse.Namespace, side: str, seed: int) -> Path:
    """Name a run's result by what it hangs on."""
    how = "recipe" if side == "ours" else f"{arguments.peer_optimizer}_{arguments.peer_lr or 'default'}"
    name = f"{side}_{how}{arguments.label}_e{arguments.epochs}_b{arguments.batch_size}_s{seed}.json"
    return arguments.out / arguments.network / name


def measure_peer(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train and score torchvision's network."""
    train, start = open_split(arguments.data_root, "trainval"), time.perf_counter()
    model = train_torchvision(
        train,
        network=arguments.network,
        optimizer=arguments.peer_optimizer,
        lr=arguments.peer_lr,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        seed=seed,
        max_steps=arguments.max_steps,
        on_epoch=lambda epoch, loss, seconds: print(f"epoch {epoch}: loss {loss:.3f}, {seconds:.0f} s", flush=True),
    )
    seconds = time.perf_counter() - start
    test = open_split(arguments.data_root, "test", train.class_names)
    both = {"own": score(test, torchvision_detector(model))}
    for name, value in OUR_POSTPROCESSING.items():
        setattr(model, name, value)
    both["ours"] = score(test, torchvision_detector(model))
    better = max(both, key=lambda name: both[name]["map_11point"])
    return {**both[better], "postprocessing": better, "by_postprocessing": both, "seconds": seconds}


def measure_ours(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train by the command of this project and score its last weights."""
    start = time.perf_counter()
    overrides = [
        *RECIPES[arguments.network],
        f"data.batch_size={arguments.batch_size}",
        f"trainer.max_epochs={arguments.epochs}",
        *([f"trainer.max_steps={arguments.max_steps}"] if arguments.max_steps else []),
        *arguments.overrides,
    ]
    run_dir = path_of(arguments, "ours", seed).with_suffix("")
    scores = train_ours(overrides, run_dir, data_root=arguments.data_root, seed=seed)
    return {**scores, "overrides": overrides, "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    main()
