"""Terminal report of a data set check: issues first, most severe at the top, then statistics."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {"error": ("bold red", "ERRORS: they would spoil the run"), "warning": ("bold yellow", "WARNINGS")}
MOST_CLASSES = 30
"""Maximum rows of the table of classes: COCO's 80 fill two screens."""


def print_issues(groups: Sequence[Mapping[str, Any]], *, lines: int, everything_in: str) -> None:
    """Print issues by severity and kind.

    Args:
        groups: records with `severity`, `title`, `advice` and `items`, each with `split` and `sentence`, in order.
        lines: number of shown issues per group.
        everything_in: file with all issues.
    """
    console = Console(soft_wrap=True, highlight=False)
    severity = ""
    for group in groups:
        if group["severity"] != severity:
            severity = group["severity"]
            style, heading = STYLES[severity]
            console.print(Text(f"\n{heading}", style))
        items = group["items"]
        console.print(Text(f"  {group['title']}: {len(items)}", "bold"))
        shown = spread_over_files([item["sentence"] for item in items], lines)
        _print_lines(console, shown, len(items), everything_in, indent="    ")
        console.print(Text(f"    -> {group['advice']}", "italic"))
    if not groups:
        console.print(Text("\nno issue", "bold green"))


def print_splits(splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the statistics of each split and of its classes.

    Args:
        splits: name -> `images`, `objects`, `difficult`, `images_without_objects`, `left_out`, and `classes`:
            name -> `objects`, `difficult` and `images`.
    """
    console = Console()
    table = Table("split")
    for header in ("images", "without objects", "objects", "difficult", "skipped"):
        table.add_column(header, justify="right")
    for name, split in splits.items():
        difficult = f"{split['difficult']} ({_percent(split['difficult'], split['objects'])})"
        counts = (split["images"], split["images_without_objects"], split["objects"], difficult, split["left_out"])
        table.add_row(name, *map(str, counts))
    console.print("\nImages and objects")
    console.print(table)

    classes = list(dict.fromkeys(name for split in splits.values() for name in split["classes"]))
    table = Table("class")
    for name in splits:
        table.add_column(name, justify="right")
    for class_name in classes[:MOST_CLASSES]:
        cells = []
        for split in splits.values():
            counts = split["classes"].get(class_name, {"objects": 0, "images": 0})
            cells.append(f"{counts['objects']} ({counts['images']})")
        table.add_row(class_name, *cells)
    if classes:
        console.print("Objects of each class (number of images)", highlight=False)
        console.print(table)
    if len(classes) > MOST_CLASSES:
        console.print(f"and {len(classes) - MOST_CLASSES} more classes")


def print_coverage(
    before: Mapping[str, Any], after: Mapping[str, Any] | None, *, lines: int, everything_in: str
) -> None:
    """Print the fraction of objects that a prior reaches, with the run's priors and with fitted ones.

    Args:
        before: `threshold`, `objects`, `share`, `mean_iou`, the same for every entry of `by_size` and `by_ratio`, and
            `unreached`, a sentence for each object, the worst first.
        after: the same for the fitted priors.
        lines: number of shown objects that no prior reaches.
        everything_in: file with all of them.
    """
    table = Table("objects")
    columns = ("count", "reached", "mean IoU") + (("fitted: reached", "mean IoU") if after else ())
    for header in columns:
        table.add_column(header, justify="right")
    for section in (None, "by_size", "by_ratio"):
        rows = before[section] if section else {"all": before}
        others = (after[section] if section else {"all": after}) if after else {}
        for name, values in rows.items():
            if values["objects"]:
                fitted = _coverage_cells(others[name]) if after else ()
                table.add_row(name, str(values["objects"]), *_coverage_cells(values), *fitted)
        table.add_section()
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"\nTraining objects that a prior reaches with IoU >= {before['threshold']:g}, images as they are")
    console.print(table)
    unreached = before["unreached"]
    if unreached:
        console.print(Text(f"objects that no prior reaches: {len(unreached)}, the worst:"))
        _print_lines(console, unreached[:lines], len(unreached), everything_in, indent="  ")


def print_trial(losses: Mapping[str, Mapping[str, float]], estimate: Mapping[str, Any], *, where: str) -> None:
    """Print the first loss and the estimated cost of the run.

    Args:
        losses: `expected` and `measured`: name -> value.
        estimate: result of `analysis.dry_run.run_estimate`.
        where: the device and the measured precision.
    """
    console = Console(soft_wrap=True, highlight=False)
    table = Table("first loss")
    for header in ("expected", "measured"):
        table.add_column(header, justify="right")
    for name, value in losses["measured"].items():
        table.add_row(name, f"{losses['expected'][name]:.2f}", f"{value:.2f}")
    console.print("\nBefore the first step")
    console.print(table)
    run = "the run has no end" if estimate["hours"] is None else f"about {_duration(estimate['hours'])}"
    steps = "" if estimate["steps"] is None else f" for {estimate['steps']} steps of {estimate['batch_size']}"
    devices = f" on {estimate['devices']} such devices" if estimate["devices"] > 1 else ""
    memory = estimate["memory_mib"]
    console.print(
        f"{estimate['images_per_s']:.1f} images/s ({where}, batches of {estimate['measured_batch_size']}, reading and "
        f"augmentation included): {run}{steps}{devices}, validation skipped"
    )
    if memory is not None:
        console.print(
            f"memory: about {memory / 1024:.1f} GiB on each device, {estimate['device_batch_size']} images at a time"
        )


def spread_over_files(sentences: Sequence[str], lines: int) -> list[str]:
    """Choose the shown issues from as many files as possible, with the number of hidden issues of each file.

    Args:
        sentences: each starts with its file and a colon.
        lines: maximum number of chosen sentences.

    Returns:
        The chosen sentences, in order.
    """
    files = [sentence.partition(": ")[0] for sentence in sentences]
    of_file: Counter[str] = Counter()
    turns = []  # the first of every file, then the second of every file, and so on
    for position, file in enumerate(files):
        of_file[file] += 1
        turns.append((of_file[file], position))
    shown = sorted(position for _, position in sorted(turns)[:lines])
    last = {files[position]: position for position in shown}
    for position in shown:
        of_file[files[position]] -= 1
    return [
        f"{sentences[position]} (and {of_file[files[position]]} more there)"
        if len(of_file) > 1 and last[files[position]] == position and of_file[files[position]]
        else sentences[position]
        for position in shown
    ]


def _print_lines(console: Console, shown: Sequence[str], total: int, everything_in: str, *, indent: str) -> None:
    for sentence in shown:
        console.print(Text(f"{indent}{sentence}"))
    if total > len(shown):
        console.print(Text(f"{indent}and {total - len(shown)} more in {everything_in}"))


def _coverage_cells(values: Mapping[str, Any]) -> tuple[str, str]:
    return f"{100 * values['share']:.1f} %", f"{values['mean_iou']:.3f}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
