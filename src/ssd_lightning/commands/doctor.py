"""Check a data set and the first training steps before a run."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ssd_lightning.analysis.dataset_check.opening import open_splits
from ssd_lightning.analysis.dataset_check.priors import FITTED, judge_priors
from ssd_lightning.analysis.dataset_check.splits import DatasetCheck, decode_images, judge_split
from ssd_lightning.analysis.health import background_issues, duplicate_issues, few_images_issues
from ssd_lightning.analysis.issues import Issue, grouped
from ssd_lightning.analysis.objects import boxes_in_input
from ssd_lightning.assembly import make_net
from ssd_lightning.auto_settings import bound_augmentation, fit_priors
from ssd_lightning.checks import require_bool, require_number
from ssd_lightning.command_line import CommandLine
from ssd_lightning.commands.doctor_trial import try_steps
from ssd_lightning.config import find_folder
from ssd_lightning.data.overlap import copies_across
from ssd_lightning.errors import WeightsError
from ssd_lightning.initial_weights import check_start
from ssd_lightning.models import SSD
from ssd_lightning.models.config import to_config
from ssd_lightning.overrides import let_epochs_replace_budget
from ssd_lightning.run_files import write_json
from ssd_lightning.visualization.health_tables import print_report

OWN_SETTINGS = ("decode", "images", "tiny_px", "lines", "fit", "trial_steps", "trial_batch_size")
"""Settings of the check only; all others are those of the run."""
NO_RECIPE = "ssd"
"""`name` of a run without `experiment=`. Recipes have their own."""


def doctor(config: DictConfig) -> dict[str, Any]:
    """Check what a run would train on, and return the content of `doctor.json`.

    Writes `doctor.json`, `coverage.png` and `priors/fitted.yaml` to the run directory and prints a report. Exits with
    code 1 if something would spoil the run.
    """
    check_settings(config)
    hydra_config = HydraConfig.get()
    let_epochs_replace_budget(config, hydra_config.overrides.task)
    directory = Path(os.path.relpath(hydra_config.runtime.output_dir))
    # Before objects are built from the configuration, since building resolves it.
    command = training_command(
        config, CommandLine.current().overrides, choice=hydra_config.runtime.choices.get("priors"), directory=directory
    )
    report = check_dataset(config, directory)
    if report["priors"] is not None:
        report["priors"]["command"] = command
    write_json(directory / "doctor.json", report)
    print_report(report, lines=config.lines, directory=directory)
    if report["spoils_the_run"]:
        sys.exit(1)
    return report


def check_settings(config: DictConfig) -> None:
    """Check the settings that only this command has."""
    if config.images != "all":
        require_number("images", config.images, 1, whole=True)
    require_number("tiny_px", config.tiny_px, 0)
    require_number("lines", config.lines, 0, whole=True)
    require_number("trial_steps", config.trial_steps, 0, whole=True)
    if config.trial_batch_size is not None:
        require_number("trial_batch_size", config.trial_batch_size, 1, whole=True)
    for name in ("decode", "fit"):
        require_bool(name, config[name])


def check_dataset(config: DictConfig, directory: Path) -> dict[str, Any]:
    """Run the whole check, and write the plot and the fitted priors. Returns the report in plain values."""
    check_start(config, Path(config.resume) if config.resume else None)
    data = instantiate(config.data.module, _convert_="all")
    data.prepare_data()
    stated = list(config.data.class_names) if config.data.class_names else None
    check = open_splits(data, class_names=stated, decode=config.decode, needs_test=bool(config.test))
    report: dict[str, Any] = {"spoils_the_run": False, "issues": [], "splits": {}, "images_decoded": 0}
    report |= {"on_error": check.on_error, "coverage": None, "priors": None, "trial": None}
    net = build_network(check, config) if check.class_names else None
    image_size = None if net is None else net.image_size
    if config.decode:
        decode_images(check, None if config.images == "all" else config.images, config.seed)
    else:
        paths = {split: list(dataset.annotations.image_paths) for split, dataset in check.datasets.items()}
        check.issues += duplicate_issues(copies_across(paths))
    for split in check.datasets:
        report["splits"][split] = judge_split(check, split, image_size=image_size, tiny_px=config.tiny_px)
    report["images_decoded"] = len(check.facts)
    if (train := report["splits"].get("train")) is not None:
        check.issues += background_issues(
            images=train["images"],
            without_objects=train["images_without_objects"],
            min_negatives=OmegaConf.select(config, "loss.class_loss.min_negatives"),
        )
        recipe = None if config.name == NO_RECIPE else str(config.name)
        check.issues += few_images_issues(images=train["images"], recipe=recipe)
    if net is not None and check.datasets["train"].annotations.counts.any():
        if config.priors.fit:  # the priors that a run with this setting fits
            choice = fit_priors(net, check.datasets["train"], check.resize)
            OmegaConf.update(config, "model.levels", to_config(choice.levels), merge=False)
            fitted = make_net(config, net.num_classes, pretrained=False)
            fitted.load_state_dict(net.state_dict())
            net = fitted
        report["coverage"], report["priors"] = judge_priors(
            check,
            net.levels,
            image_size=net.image_size,
            clip=net.clip_priors,
            iou_threshold=config.loss.matcher.iou_threshold,
            directory=directory,
            data=str(config.data.get("root", "the training split")),
            fit=config.fit and not config.priors.fit,
            seed=config.seed,
        )
        if config.trial_steps and config.decode:
            if config.auto_augmentation:
                bound_augmentation(config, boxes_in_input(check.datasets["train"], check.resize, net.image_size))
            report["trial"] = try_steps(check, config, net)
    report["spoils_the_run"] = any(issue.severity == "error" for issue in check.issues)
    report["issues"] = grouped(check.issues)
    for group in report["issues"]:
        if group["kind"] == "outside" and check.on_error != "clip":
            group["advice"] += "; data.on_error=clip keeps what is inside"
        if group["kind"] == "rare_class" and not config.data.repeat_rare:
            group["advice"] += "; data.repeat_rare=true shows their images more often"
    return report


def build_network(check: DatasetCheck, config: DictConfig) -> SSD:
    """Build the network of the run. Weights that cannot be read are an issue, and random ones take their place."""
    torch.manual_seed(config.seed)
    try:
        return make_net(config, len(check.class_names), pretrained=not config.init_from)
    except WeightsError as error:
        check.issues.append(Issue("error", "weights", "train", str(error)))
        return make_net(config, len(check.class_names), pretrained=False)


def training_command(config: DictConfig, overrides: Sequence[str], *, choice: str | None, directory: Path) -> str:
    """Return the command that trains with the fitted priors. `choice` is the value of `priors=`."""
    left_out = (*OWN_SETTINGS, "priors", "priors.fit", "model.levels", "hydra.run.dir")
    kept = [text for text in overrides if text.lstrip("+~").partition("=")[0] not in left_out]
    arguments = ["python", "-m", "ssd_lightning.train", "--config-dir", str(directory), *kept, f"priors={FITTED}"]
    path = find_folder("conf") / "priors" / f"{choice}.yaml"
    # A recipe is merged after the groups, so its priors would be merged into the fitted ones.
    as_stated = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else None
    priors = {key: value for key, value in OmegaConf.to_container(config.priors).items() if key != "fit"}  # type: ignore[union-attr]
    if priors != as_stated:
        arguments.append("model.levels=${priors.fitted}")
    return shlex.join(arguments)
