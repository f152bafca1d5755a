"""What single settings of a recipe are worth on the real data sets of `real_sets.py`: one factor at a time.

    python benchmarks/real_sets_factors.py --data-root DATA --out outputs/factors --weights mobilenet_v2-b0353104.pth
    python benchmarks/real_sets_factors.py ... --sets aquarium --factors no_expand lr_2 --split valid
    python benchmarks/real_sets_factors.py ... --list paper --sets bccd --epochs 10

Each factor is a few overrides on top of a recipe, and is trained for a fixed number of epochs, not for a time, on every
set with every seed at one thread. The table gives the recipe's score and each factor's mean difference from it, with
the same set and seed on both sides. Runs are kept and gone on with as `real_sets.py` does.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from real_sets import add_common, code_of, log, mean_and_spread, measure, read_results
from real_sets_sides import SETS, Run

BASELINE = "baseline"
LISTS = {
    "finetune": {
        BASELINE: ["experiment=finetune", "budget=null"],  # its own length is a time
        "no_expand": ["augmentation.expand=false"],
        "photometric": ["augmentation.photometric=true"],
        "crop": ["augmentation.crop=true"],
        "crop_center": ["augmentation.crop=true", "augmentation.crop_rule=center"],
        "no_repeat_rare": ["data.repeat_rare=false"],
        "published_priors": ["priors.fit=false"],
        "no_stride_8": ["backbone.strides=[16,32]", "priors.levels.strides=[16,32,64,128]"],
        "iou_0.5": ["loss.matcher.iou_threshold=0.5"],
        "argmax": ["loss/matcher=argmax"],
        "min_negatives_0": ["loss.class_loss.min_negatives=0"],
        "freeze_nothing": ["backbone.freeze=null", "backbone.freeze_norm=false"],
        "learn_norm": ["backbone.freeze_norm=false"],
        "bias_rule": ["optimizer.bias_lr_factor=2"],
        "weight_decay_0": ["optimizer.weight_decay=0"],
        "weight_decay_05": ["optimizer.weight_decay=0.05"],
        "lr_2.5": ["optimizer.lr=0.0025"],
        "lr_10": ["optimizer.lr=0.01"],
        "no_ema": ["callbacks=default"],
        "plain_nms": ["postprocess.soft_nms=null"],
        "no_voting": ["postprocess.box_voting=null"],
    },
    "paper": {
        BASELINE: ["experiment=bccd_paper"],
        "ema": ["callbacks=[default,ema]", "callbacks.ema.decay=0.98"],
        "cosine": ["scheduler=cosine", "scheduler.warmup_steps=0"],
        "warmup": ["scheduler.warmup_steps=36"],
        "giou": ["loss/box_loss=giou", "loss.box_weight=3.0"],
        "mosaic": ["data.mosaic_probability=0.5", "data.mosaic_epochs=7"],
    },
}
"""Name of a list -> factor -> overrides, which come after those of its baseline."""


def main(command_line: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table; gives 1 if a run failed."""
    arguments = parse(command_line)
    factors = LISTS[arguments.list]
    chosen = [BASELINE, *(name for name in factors if name in arguments.factors and name != BASELINE)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with code_of(arguments.commit, arguments.out) as (code, commit):
        do = partial(measure, split=arguments.split, out=arguments.out, code=code, commit=commit)
        for name in arguments.sets:
            for seed in arguments.seeds:
                for factor in chosen:
                    failed += do(make_run(arguments, name, seed, factor)) is None
    if failed:
        log(f"{failed} runs failed")
    print(table(read_results(arguments.out), chosen, split=arguments.split))
    return int(failed > 0)


def parse(command_line: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common(parser)
    parser.set_defaults(threads=1, split="valid")
    parser.add_argument("--list", choices=list(LISTS), default="finetune", help="which baseline and factors")
    parser.add_argument("--factors", nargs="+", metavar="FACTOR", help="only these; default: all of the list")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=["aquarium", "cards", "bccd"], metavar="SET")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--overrides", nargs="+", default=[], help="of every run, before the factor's")
    arguments = parser.parse_args(command_line)
    known = list(LISTS[arguments.list])
    arguments.factors = arguments.factors or known
    unknown = [factor for factor in arguments.factors if factor not in known]
    if unknown:
        parser.error(f"there is no factor '{unknown[0]}' in {arguments.list}; there is {', '.join(known)}")
    return arguments


def make_run(arguments: argparse.Namespace, name: str, seed: int, factor: str) -> Run:
    """Describe the run of a factor; what comes later on its command line counts."""
    factors = LISTS[arguments.list]
    own = factors[factor] if factor != BASELINE else []
    is_recipe = any(override.startswith("experiment=") for override in own)
    return Run(
        set=name,
        side="ours",
        seed=seed,
        root=str((arguments.data_root / name).resolve()),
        folder="",
        budget=f"{arguments.epochs}epochs",
        threads=arguments.threads,
        recipe=[
            *([] if is_recipe else factors[BASELINE]),
            f"trainer.max_epochs={arguments.epochs}",
            *arguments.overrides,
            *own,
        ],
        weights=arguments.weights and str(arguments.weights.resolve()),
        label=f"{arguments.list}_{factor}",
        tiny=arguments.tiny,
    )


def table(records: Sequence[Mapping[str, Any]], factors: Sequence[str], *, split: str) -> str:
    """Lay out VOC area mAP in Markdown: of the baseline, and of each factor what it adds to it; sets are columns."""
    scores = {
        (record["label"].partition("_")[2], record["set"], record["budget"], record["seed"]): record["scores"][split]
        for record in records
        if record.get("label") and split in record["scores"]
    }
    sets = [name for name in SETS if any(key[1] == name for key in scores)]
    lines = [f"| factor | {' | '.join(sets)} | mean |", "|---" * (len(sets) + 2) + "|"]
    for factor in factors:
        cells, means = [], []
        for name in sets:
            values = [
                score["map_area"] - (0 if factor == BASELINE else scores[(BASELINE, *key[1:])]["map_area"])
                for key, score in sorted(scores.items())
                if key[:2] == (factor, name) and (BASELINE, *key[1:]) in scores
            ]
            cells.append(mean_and_spread(values) if values else "")
            means += [statistics.mean(values)] if values else []
        lines.append(
            f"| {factor} | {' | '.join(cells)} | {mean_and_spread([statistics.mean(means)]) if means else ''} |"
        )
    machines = sorted({f"{record['hardware']}, {record['threads']} thread(s)" for record in records})
    return "\n".join([*lines, "", f"VOC area mAP of the {split} images. {'; '.join(machines)}"])


if __name__ == "__main__":
    sys.exit(main())
