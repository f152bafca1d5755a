"""Page content around the charts: scores, facts, curves, missing parts, commands to reproduce the run."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from ssd_lightning.errors import listed
from ssd_lightning.reporting.run import CONFIG, METRICS, SPLITS, Run, lookup
from ssd_lightning.run_files import EVALUATIONS, RECORD, RESULT

SCORES = {
    "map_11point": "mAP, 11 points",
    "map_area": "mAP, area",
    "map": "mAP .5:.95",
    "map_50": "AP50",
    "map_75": "AP75",
}
"""Logged name after the split -> title on the page."""
PACKAGES = ("torch", "torchvision", "pytorch-lightning")
MOST_NAMES = 12


def score_rows(run: Run) -> list[tuple[str, list[tuple[str, float | None]]]]:
    """List the name and the scores (by `SCORES`) of every scored split."""
    rows = []
    for split, name in SPLITS.items():
        scores = [(label, run.score(f"{split}/{key}")) for key, label in SCORES.items()]
        if any(score is not None for _, score in scores):
            rows.append((name, scores))
    return rows


def facts(run: Run) -> Iterator[tuple[str, str]]:
    """List facts about the training as (name, text)."""
    record = run.record
    best, curve = run.best_validation(), run.curves.get(run.objective)
    if best is not None and curve is not None:
        where = f"after epoch {curve.epochs[best] + 1}, step {curve.steps[best] + 1:,}"
        yield "Best validation", f"{where}: {run.objective} {curve.values[best]:.4f}"
    if (trained := run.epochs_trained()) is not None:
        planned = lookup(run.config, "trainer", "max_epochs", kind=int)
        yield "Epochs", f"{trained} of {planned}" if planned and planned > 0 else f"{trained}"
    if (seconds := run.seconds()) is not None:
        yield "Time", duration(seconds) + (", since it was last started" if record.get("earlier") else "")
    if images := run.images():
        names = {"train": "training", **SPLITS}
        yield "Images", ", ".join(f"{count:,} {names.get(split, split)}" for split, count in images.items())
    if classes := run.class_names:
        yield "Classes", f"{len(classes)}: {listed(classes, MOST_NAMES)}"
    size = lookup(run.config, "image_size", kind=list) or []
    if len(size) == 2:
        priors = lookup(record, "priors", kind=int)
        yield "Input", f"{size[1]} × {size[0]} px" + (f", {priors:,} priors" if priors else "")
    if machine := lookup(record, "machine", kind=Mapping):
        yield "Hardware", ", ".join(map(str, machine.get("devices") or [machine.get("processor")]))
    if versions := lookup(record, "versions", kind=Mapping):
        packages = {"ssd_lightning": record.get("ssd_lightning"), **{name: versions.get(name) for name in PACKAGES}}
        yield "Software", ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    if commit := record.get("git_commit"):
        yield "Commit", f"{str(commit)[:12]}{' and what git.diff holds' if record.get('git_dirty') else ''}"
    if "seed" in record:
        yield "Seed", str(record["seed"])
    if "started" in record:
        yield "Started", str(record["started"]).replace("T", " ").replace("+00:00", " UTC")


def gaps(run: Run) -> list[str]:
    """Describe what the page lacks, and why."""
    found = []
    if run.result is None:
        found.append(f"The run is unfinished, or was stopped: there is no {RESULT}.")
    for name, what in ((METRICS, "curves"), (CONFIG, "configuration"), (RECORD, "hardware, versions and commit")):
        if not (run.directory / name).is_file():
            found.append(f"No {what}: there is no {name}.")
    if run.curves and run.best_validation() is None:
        trainer = lookup(run.config, "trainer", kind=Mapping) or {}
        every, epochs = (lookup(trainer, key, kind=int) or 0 for key in ("check_val_every_n_epoch", "max_epochs"))
        seldom = f", since trainer.check_val_every_n_epoch={every} is more than its {epochs} epochs"
        found.append(f"No validation: {METRICS} has no {run.objective}{seldom * (every > epochs > 0)}.")
    wanted = ["val", *(["test"] if run.config.get("test") else [])]
    for split in wanted:
        if split not in run.evaluations:
            how = f". It is written by: {evaluation_command(run, split)}" if run.checkpoint else " and no checkpoint."
            what = f"No classes, curves, errors and images of the {SPLITS[split]}"
            found.append(f"{what}: there is no {EVALUATIONS}/{split}.npz{how}")
    return found


def evaluation_command(run: Run, split: str) -> str:
    """Return the command that evaluates the run's checkpoint for its page."""
    record = run.directory / EVALUATIONS / f"{split}.npz"
    overrides = [f"checkpoint={run.directory}", *data_overrides(run.directory), f"split={split}", f"record={record}"]
    return shlex.join(["python", "-m", "ssd_lightning.evaluate", *overrides])


def data_overrides(directory: Path) -> list[str]:
    """Return the overrides of a run that selected its data; `data=...` if they are not recorded."""
    try:
        hydra = yaml.safe_load((directory / ".hydra" / "hydra.yaml").read_bytes())["hydra"]
        overrides = [text for text in hydra["overrides"]["task"] if str(text).lstrip("+").startswith("data.")]
        return [f"data={hydra['runtime']['choices']['data']}", *overrides]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return ["data=..."]


def reproduction(run: Run) -> str:
    """Return the commands that reproduce the run."""
    record, lines = run.record, []
    if record.get("git_commit"):
        lines.append(f"git checkout {record['git_commit']}")
        if record.get("git_dirty") and (run.directory / "git.diff").is_file():
            lines.append(shlex.join(["git", "apply", str(run.directory / "git.diff")]))
    if (run.directory / ".hydra" / "config.yaml").is_file():
        composed = str(run.directory / ".hydra")
        lines.append(shlex.join(["python", "-m", "ssd_lightning.train", "--config-path", composed]))
    elif record.get("command"):
        lines.append(str(record["command"]))
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Format a duration in its two largest units: 3 h 12 min."""
    whole = max(0, round(seconds))  # the clock may have been set back
    for unit, size, below, smaller in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {below}"
    return f"{whole} s"
