"""Page content around the charts: scores, facts, curves, missing parts, commands to reproduce the run."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ssd_lightning.reporting.run import CONFIG, METRICS, SPLITS, Run
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


def facts(run: Run) -> list[tuple[str, str]]:
    """List facts about the training as (name, text)."""
    record, found = run.record, []
    best, curve = run.best_validation(), run.curves.get(run.objective)
    if best is not None and curve is not None:
        text = f"after epoch {curve.epochs[best] + 1}, step {curve.steps[best] + 1:,}: {run.objective} "
        found.append(("Best validation", f"{text}{curve.values[best]:.4f}"))
    trained = run.epochs_trained()
    trainer = run.config.get("trainer")
    planned = trainer.get("max_epochs") if isinstance(trainer, Mapping) else None
    if trained is not None:
        found.append(("Epochs", f"{trained} of {planned}" if planned and planned > 0 else f"{trained}"))
    if (seconds := run.seconds()) is not None:
        found.append(("Time", duration(seconds) + (", since it was last started" if record.get("earlier") else "")))
    if images := run.images():
        names = {"train": "training", **SPLITS}
        counts = ", ".join(f"{count:,} {names.get(split, split)}" for split, count in images.items())
        found.append(("Images", counts))
    if classes := run.class_names:
        more = f" and {len(classes) - MOST_NAMES} more" if len(classes) > MOST_NAMES else ""
        found.append(("Classes", f"{len(classes)}: {', '.join(classes[:MOST_NAMES])}{more}"))
    size = run.config.get("image_size")
    if isinstance(size, list) and len(size) == 2:
        priors = record.get("priors")
        more = f", {priors:,} priors" if isinstance(priors, int) else ""
        found.append(("Input", f"{size[1]} × {size[0]} px{more}"))
    machine = record.get("machine")
    if isinstance(machine, Mapping):
        devices = machine.get("devices") or [machine.get("processor")]
        found.append(("Hardware", ", ".join(str(device) for device in devices)))
    versions = record.get("versions")
    if isinstance(versions, Mapping):
        packages = {"ssd_lightning": record.get("ssd_lightning"), **{name: versions.get(name) for name in PACKAGES}}
        found.append(("Software", ", ".join(f"{name} {version}" for name, version in packages.items() if version)))
    if record.get("git_commit"):
        changed = " and what git.diff holds" if record.get("git_dirty") else ""
        found.append(("Commit", f"{str(record['git_commit'])[:12]}{changed}"))
    if "seed" in record:
        found.append(("Seed", str(record["seed"])))
    if "started" in record:
        found.append(("Started", str(record["started"]).replace("T", " ").replace("+00:00", " UTC")))
    return found


def gaps(run: Run) -> list[str]:
    """Describe what the page lacks, and why."""
    found = []
    if run.result is None:
        found.append(f"The run is unfinished, or was stopped: there is no {RESULT}.")
    for name, what in ((METRICS, "curves"), (CONFIG, "configuration"), (RECORD, "hardware, versions and commit")):
        if not (run.directory / name).is_file():
            found.append(f"No {what}: there is no {name}.")
    if run.curves and run.best_validation() is None:
        found.append(f"No validation: {METRICS} has no {run.objective}{_why_unvalidated(run)}.")
    wanted = ["val", *(["test"] if run.config.get("test") else [])]
    for split in wanted:
        if split not in run.evaluations:
            found.append(
                f"No classes, curves, errors and images of the {SPLITS[split]}: there is no {EVALUATIONS}/{split}.npz"
                + (f". It is written by: {evaluation_command(run, split)}" if run.checkpoint else " and no checkpoint.")
            )
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


def config_text(config: Mapping[str, Any]) -> str:
    """Return a configuration as YAML."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100) if config else ""


def duration(seconds: float) -> str:
    """Format a duration in its two largest units: 3 h 12 min."""
    whole = max(0, round(seconds))  # the clock may have been set back
    for unit, size, below, smaller in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {below}"
    return f"{whole} s"


def _why_unvalidated(run: Run) -> str:
    trainer = run.config.get("trainer")
    if not isinstance(trainer, Mapping):
        return ""
    every, epochs = trainer.get("check_val_every_n_epoch"), trainer.get("max_epochs")
    if isinstance(every, int) and isinstance(epochs, int) and every > epochs > 0:
        return f", since trainer.check_val_every_n_epoch={every} is more than its {epochs} epochs"
    return ""
