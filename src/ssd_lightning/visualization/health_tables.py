"""Terminal report of a data set check: issues first, most severe at the top, then statistics."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.text import Text

from ssd_lightning.data.annotation_checks import ProblemKind
from ssd_lightning.visualization.tables import TextTable, print_table, share

STYLES = {"error": ("bold red", "ERRORS: they would spoil the run"), "warning": ("bold yellow", "WARNINGS")}
MOST_CLASSES = 30
"""Maximum rows of the table of classes: COCO's 80 fill two screens."""


def print_report(report: Mapping[str, Any], *, lines: int, directory: Path) -> None:
    """Print the results of the doctor, most severe first, and the paths of all files.

    `report` is the content of `doctor.json`; `lines` issues of each kind are printed. `directory` has the files.
    """
    everything = str(directory / "doctor.json")
    print_issues(report["issues"], lines=lines, everything_in=everything)
    print_splits(report["splits"])
    coverage, priors, trial = report["coverage"], report["priors"], report["trial"]
    if coverage is not None:
        after = None if priors is None else priors["coverage"]
        print_coverage(coverage, after, lines=lines, everything_in=everything)
    if trial is not None:
        print_trial(trial["losses"], trial["estimate"], where=trial["where"])
    print(f"\n{report['images_decoded']} images decoded; all issues: {everything}")
    if coverage is not None:
        print(f"plot:   {directory / 'coverage.png'}")
    if priors is not None:
        print(f"priors: {priors['file']}, used by\n  {priors['command']}")
    errors = {group["kind"] for group in report["issues"] if group["severity"] == "error"}
    if not report["spoils_the_run"]:
        print("nothing would spoil the run" + ("; the warnings above may lower its scores" * bool(report["issues"])))
    elif report["on_error"] == "raise" and errors & set(get_args(ProblemKind)):
        kept = "; clip keeps the part of a box inside of the image" * ("outside" in errors)
        print(f"something would spoil the run (data.on_error=skip skips unusable objects and images{kept})")
    else:
        print("something would spoil the run")


def print_issues(groups: Sequence[Mapping[str, Any]], *, lines: int, everything_in: str) -> None:
    """Print issues by severity and kind.

    `groups` are those of `analysis.issues.grouped`; of each, at most `lines` issues are printed.
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
        _print_lines(shown, len(items), everything_in, indent="    ")
        console.print(Text(f"    -> {group['advice']}", "italic"))
    if not groups:
        console.print(Text("\nno issue", "bold green"))


def print_splits(splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the statistics of each split and of its classes.

    Splits are described by `analysis.objects.split_summary`.
    """
    rows = []
    for name, split in splits.items():
        difficult = f"{split['difficult']} ({share(split['difficult'], split['objects'])})"
        counts = (split["images"], split["images_without_objects"], split["objects"], difficult, split["left_out"])
        rows.append((name, *map(str, counts)))
    print("\nImages and objects")
    print_table(
        TextTable(("split", "images", "without objects", "objects", "difficult", "skipped"), rows), numbers=True
    )
    names = list(dict.fromkeys(name for split in splits.values() for name in split["classes"]))
    if names:
        of_classes, none = [split["classes"] for split in splits.values()], {"objects": 0, "images": 0}
        rows = [(name, *("{objects} ({images})".format(**of.get(name, none)) for of in of_classes)) for name in names]
        print("Objects of each class (number of images)")
        print_table(TextTable(("class", *splits), rows[:MOST_CLASSES]), numbers=True)
    if len(names) > MOST_CLASSES:
        print(f"and {len(names) - MOST_CLASSES} more classes")


def print_coverage(
    before: Mapping[str, Any], after: Mapping[str, Any] | None, *, lines: int, everything_in: str
) -> None:
    """Print the fraction of objects that a prior reaches, with the run's priors and with fitted ones.

    Both are `analysis.coverage.coverage_summary`; `before` also has a sentence for each object that is `unreached`, the
    worst first, of which `lines` are printed.
    """
    both = (before, after) if after else (before,)
    rows: list[tuple[str, ...]] = []
    for sections in ([{"all": one} for one in both], *([one[key] for one in both] for key in ("by_size", "by_ratio"))):
        for name, values in sections[0].items():
            if values["objects"]:
                of_name = [section[name] for section in sections]
                cells = [cell for one in of_name for cell in (f"{one['share']:.1%}", f"{one['mean_iou']:.3f}")]
                rows.append((name, str(values["objects"]), *cells))
        rows.append(())
    header = ("objects", "count", "reached", "mean IoU", *(("fitted: reached", "mean IoU") if after else ()))
    print(f"\nTraining objects that a prior reaches with IoU >= {before['threshold']:g}, images as they are")
    print_table(TextTable(header, rows), numbers=True)
    unreached = before["unreached"]
    if unreached:
        print(f"objects that no prior reaches: {len(unreached)}, the worst:")
        _print_lines(unreached[:lines], len(unreached), everything_in, indent="  ")


def print_trial(losses: Mapping[str, Mapping[str, float]], estimate: Mapping[str, Any], *, where: str) -> None:
    """Print the first loss and the estimated cost of the run.

    See `analysis.dataset_check.dry_run` for both.
    """
    print("\nBefore the first step")
    rows = [(name, f"{losses['expected'][name]:.2f}", f"{value:.2f}") for name, value in losses["measured"].items()]
    print_table(TextTable(("first loss", "expected", "measured"), rows), numbers=True)
    run = "the run has no end" if estimate["hours"] is None else f"about {_duration(estimate['hours'])}"
    steps = "" if estimate["steps"] is None else f" for {estimate['steps']} steps of {estimate['batch_size']}"
    devices = f" on {estimate['devices']} such devices" if estimate["devices"] > 1 else ""
    print(
        f"{estimate['images_per_s']:.1f} images/s ({where}, batches of {estimate['measured_batch_size']}, reading and "
        f"augmentation included): {run}{steps}{devices}, validation skipped"
    )
    if (memory := estimate["memory_mib"]) is not None:
        at_a_time = estimate["device_batch_size"]
        print(f"memory: about {memory / 1024:.1f} GiB on each device, {at_a_time} images at a time")


def spread_over_files(sentences: Sequence[str], lines: int) -> list[str]:
    """Choose the shown issues from as many files as possible, with the number of hidden issues of each file.

    Each sentence starts with its file and a colon.

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
    hidden = of_file - Counter(files[position] for position in shown)
    last = {files[position]: position for position in shown}
    return [
        f"{sentences[position]} (and {hidden[files[position]]} more there)"
        if len(of_file) > 1 and last[files[position]] == position and hidden[files[position]]
        else sentences[position]
        for position in shown
    ]


def _print_lines(shown: Sequence[str], total: int, everything_in: str, *, indent: str) -> None:
    for sentence in shown:
        print(f"{indent}{sentence}")
    if total > len(shown):
        print(f"{indent}and {total - len(shown)} more in {everything_in}")


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
