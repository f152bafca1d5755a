"""`python -m ssd_lightning.doctor`: examine a data set, and the first steps of a run on it, before the run."""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd_lightning.checks import require_number
from ssd_lightning.configs import find_folder, run_command
from ssd_lightning.errors import ConfigurationError, DataError
from ssd_lightning.overrides import command_line_overrides

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from ssd_lightning.analysis.findings import Finding
    from ssd_lightning.analysis.objects import Objects
    from ssd_lightning.data.dataset import DetectionDataset, Record
    from ssd_lightning.data.inspection import PictureFacts
    from ssd_lightning.models import SSD

OWN_SETTINGS = ("pictures", "tiny_px", "lines", "fit", "trial_steps", "trial_batch_size")
"""Of the examination alone; all others are the run's."""
MOST_ON_A_PROCESSOR = 8
FITTED = "fitted"
"""Name of the fitted priors' file."""


def main() -> None:
    """Run the command."""
    # The profiler that measures memory has a log of its own, which tells of GPUs that a machine lacks.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    run_command("doctor", doctor)


def doctor(config: "DictConfig") -> dict[str, Any]:
    """Examine what a run would train on.

    Writes `doctor.json`, `coverage.png` and `priors/fitted.yaml` to the run directory and prints a report. Ends with
    exit code 1 if something would spoil the run.

    Args:
        config: as `conf/doctor.yaml` composes it.

    Returns:
        What is written to `doctor.json`.

    Raises:
        UserError: a setting cannot be used, or there are no data at all.
    """
    from hydra.core.hydra_config import HydraConfig

    check_settings(config)
    hydra_config = HydraConfig.get()
    directory = Path(os.path.relpath(hydra_config.runtime.output_dir))
    # Before anything is made of the configuration, which resolves it.
    command = training_command(
        config, command_line_overrides(), choice=hydra_config.runtime.choices.get("priors"), directory=directory
    )
    report = examine(config, directory)
    if report["priors"] is not None:
        report["priors"]["command"] = command
    (directory / "doctor.json").write_text(json.dumps(report, indent=2) + "\n")
    print_report(report, lines=config.lines, directory=directory)
    if report["spoils_the_run"]:
        sys.exit(1)
    return report


def check_settings(config: "DictConfig") -> None:
    """Look at the settings that no other command has.

    Raises:
        ConfigurationError: a value cannot be used.
    """
    if config.pictures != "all":
        require_number("pictures", config.pictures, 0, whole=True)
    require_number("tiny_px", config.tiny_px, 0)
    require_number("lines", config.lines, 0, whole=True)
    require_number("trial_steps", config.trial_steps, 0, whole=True)
    if config.trial_batch_size is not None:
        require_number("trial_batch_size", config.trial_batch_size, 1, whole=True)
    if not isinstance(config.fit, bool):
        raise ConfigurationError(f"fit is {config.fit!r}; it must be true or false")


def examine(config: "DictConfig", directory: Path) -> dict[str, Any]:
    """Do the whole examination, and write the plot and the fitted priors.

    Args:
        config: as `conf/doctor.yaml` composes it.
        directory: of the files.

    Returns:
        The report in plain values.
    """
    from hydra.utils import instantiate

    from ssd_lightning.analysis.findings import grouped, spoils_the_run

    examination = read_splits(config)
    report: dict[str, Any] = {"spoils_the_run": False, "findings": [], "splits": {}, "pictures_decoded": 0}
    report["on_error"] = "raise" if examination.is_strict else "skip"
    report |= {"coverage": None, "priors": None, "trial": None}
    net = None
    if examination.class_names:
        net = instantiate(config.net, num_classes=len(examination.class_names), _convert_="all")
    decode_pictures(examination, config)
    for split in examination.datasets:
        report["splits"][split] = judge_split(examination, split, config, net)
    report["pictures_decoded"] = len(examination.facts)
    if net is not None and examination.training_objects:
        report["coverage"], report["priors"] = judge_priors(examination, config, net, directory)
        if config.trial_steps:
            report["trial"] = try_steps(examination, config, net)
    report["spoils_the_run"] = spoils_the_run(examination.findings)
    report["findings"] = grouped(examination.findings)
    return report


@dataclass
class Examination:
    """What is known so far."""

    is_strict: bool
    """Whether the run stops at the first fault."""
    datasets: "dict[str, DetectionDataset]" = field(default_factory=dict)
    facts: "dict[Path, PictureFacts]" = field(default_factory=dict)
    findings: "list[Finding]" = field(default_factory=list)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 1..C; none where the training split cannot be opened."""
        return self.datasets["train"].class_names if "train" in self.datasets else ()

    @property
    def training_objects(self) -> int:
        """Number of sound objects to train on."""
        return sum(len(record.labels) for record in self.datasets["train"].records)

    def problems(self, split: str) -> list[str]:
        """List the pictures of a split that were decoded and cannot be used."""
        facts = (self.facts.get(record.image_path) for record in self.datasets[split].records)
        return [known.problem for known in facts if known is not None and known.problem is not None]


def read_splits(config: "DictConfig") -> Examination:
    """Open all splits of a data set as far as they can be opened.

    Raises:
        DataError: the data are not there at all.
    """
    from hydra.utils import instantiate

    from ssd_lightning.analysis.findings import Finding
    from ssd_lightning.analysis.health import pixel_origin_findings
    from ssd_lightning.data.inspection import count_edges, open_leniently
    from ssd_lightning.data.splits import MissingSplitError, check_root

    data = instantiate(config.data.module, _convert_="all")
    data.prepare_data()
    make: partial[DetectionDataset] = instantiate(config.data.module.dataset, _convert_="all")
    examination = Examination(is_strict=make.keywords.get("on_error", "raise") != "skip")
    stated = list(config.data.class_names) if config.data.class_names else None
    for split in ("train", "val", "test"):
        if not data.has(split):
            continue
        arguments = instantiate(config.data.module[split], _convert_="all")
        for place in arguments.get("splits", ()):
            check_root(Path(place["root"]).expanduser())
        arguments["class_names"] = stated or list(examination.class_names) or None
        try:
            examination.datasets[split] = open_leniently(make, **arguments)
            if "xml_offset" in make.keywords and split == "train":
                at_zero, at_one = count_edges(make, **arguments)
                offset = make.keywords["xml_offset"]
                examination.findings += pixel_origin_findings(split, at_zero=at_zero, at_one=at_one, offset=offset)
        except DataError as error:
            if isinstance(error, MissingSplitError) and split == "train":
                raise
            # A missing test split is met when it is asked for, which may be never.
            only_later = isinstance(error, MissingSplitError) and split == "test" and not config.test
            examination.findings.append(Finding("warning" if only_later else "error", "unopened", split, str(error)))
    return examination


def decode_pictures(examination: Examination, config: "DictConfig") -> None:
    """Decode all pictures, or a sample of them."""
    from rich.progress import Progress

    from ssd_lightning.analysis.health import duplicate_findings
    from ssd_lightning.data.inspection import draw_sample, inspect_pictures

    count = None if config.pictures == "all" else config.pictures
    records = {split: dataset.records for split, dataset in examination.datasets.items()}
    sample = draw_sample(records, count, config.seed)
    chosen = [record for of_split in sample.values() for record in of_split]
    with Progress(transient=True) as progress:
        task = progress.add_task("decoding", total=len({record.image_path for record in chosen}))
        examination.facts = inspect_pictures(chosen, advance=lambda: progress.advance(task))
    digests = {split: _digests(of_split, examination.facts) for split, of_split in sample.items()}
    examination.findings += duplicate_findings(digests)


def _digests(records: "Sequence[Record]", facts: "Mapping[Path, PictureFacts]") -> dict[str, str]:
    known = (facts[record.image_path] for record in records)
    return {str(fact.path): fact.digest for fact in known if fact.digest is not None}


def judge_split(examination: Examination, split: str, config: "DictConfig", net: "SSD | None") -> dict[str, Any]:
    """Find what is wrong with a split, and count what it has."""
    from ssd_lightning.analysis import health
    from ssd_lightning.analysis.objects import split_summary

    dataset = examination.datasets[split]
    objects = objects_of(dataset.records)
    severity: Any = "error" if examination.is_strict else "warning"
    unsound, unread = dataset.dropped, examination.problems(split)
    left_out = len(unsound) + len(unread)
    summary = split_summary(objects, dataset.class_names, pictures=len(dataset.records), left_out=left_out)
    counts = [of_class["objects"] for of_class in summary["classes"].values()]
    found = health.reader_findings(split, unsound, otherwise="annotation", severity=severity)
    found += health.reader_findings(split, unread, otherwise="picture", severity=severity)
    found += health.class_number_findings(split, unsound, counts, dataset.class_names)
    found += health.amount_findings(
        split,
        pictures=len(dataset.records) - len(unread),
        objects=len(objects.labels),
        left_out=left_out,
        is_trained_on=split == "train",
    )
    if split == "train" and len(objects.labels):
        found += health.unused_class_findings(split, counts, dataset.class_names)
    if net is not None:
        paths = [str(record.image_path) for record in dataset.records]
        found += health.tiny_findings(
            split, objects, paths, dataset.class_names, image_size=net.image_size, tiny_px=config.tiny_px
        )
    examination.findings += found
    return summary


def objects_of(records: "Sequence[Record]") -> "Objects":
    """Put the objects of all pictures into one table."""
    import numpy as np

    from ssd_lightning.analysis.objects import Objects

    scales = [[width, height, width, height] for height, width in (record.size_px for record in records)]
    boxes = [record.boxes_xyxy_px / np.array(scale) for record, scale in zip(records, scales, strict=True)]
    return Objects(
        picture=np.repeat(np.arange(len(records)), [len(record.labels) for record in records]).astype(np.int64),
        boxes_xyxy=np.concatenate([np.empty((0, 4)), *boxes]),
        labels=np.concatenate([np.empty(0, np.int64), *(record.labels for record in records)]),
        difficult=np.concatenate([np.empty(0, bool), *(record.difficult for record in records)]),
    )


def judge_priors(
    examination: Examination, config: "DictConfig", net: "SSD", directory: Path
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Measure how the network's priors cover the training objects, and fit others.

    Returns:
        The coverage, and what is known of the fitted priors.
    """
    from ssd_lightning.analysis.coverage import (
        best_priors,
        coverage_findings,
        coverage_summary,
        describe_unreached,
    )
    from ssd_lightning.analysis.fitting import fit_levels
    from ssd_lightning.analysis.objects import sides_px
    from ssd_lightning.analysis.priors_file import priors_yaml
    from ssd_lightning.visualization.coverage_plot import draw_coverage

    dataset = examination.datasets["train"]
    objects, size, clip = objects_of(dataset.records), net.image_size, config.net.clip_priors
    boxes = objects.boxes_xyxy
    before = best_priors(boxes, net.levels, size, clip)
    paths = [str(record.image_path) for record in dataset.records]
    coverage = coverage_summary(boxes, before.iou, size)
    coverage["unreached"] = describe_unreached(objects, before.iou, paths, dataset.class_names, size)
    examination.findings += coverage_findings(coverage)
    draw = partial(
        draw_coverage,
        directory / "coverage.png",
        sides_px=sides_px(boxes, size),
        threshold=coverage["threshold"],
        before=coverage,
        iou_before=before.iou,
        shapes_before=[shape for level in net.levels for shape in level.sizes()],
    )
    if not config.fit:
        draw()
        return coverage, None
    fit = fit_levels(boxes, net.levels, size, clip, seed=config.seed)
    after = coverage_summary(boxes, fit.after.iou, size)
    draw(
        after=after,
        iou_after=fit.after.iou,
        shapes_after=[shape for level in fit.levels for shape in level.sizes()],
    )
    text = priors_yaml(
        fit.levels,
        clip=clip,
        image_size=size,
        data=str(config.data.get("root", "the training split")),
        objects=len(boxes),
        before=f"{coverage['share']:.1%}",
        after=f"{after['share']:.1%}",
    )
    path = directory / "priors" / f"{FITTED}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return coverage, {"file": str(path), "coverage": after}


def try_steps(examination: Examination, config: "DictConfig", net: "SSD") -> dict[str, Any] | None:
    """Take a few training steps: the first loss, and an estimate of the whole run. None where memory ends."""
    import torch
    from hydra.utils import instantiate

    from ssd_lightning.analysis.findings import Finding
    from ssd_lightning.analysis.trial import first_loss_findings, first_losses, run_estimate, time_steps
    from ssd_lightning.benchmarking.memory import MIB, peak_memory_mib
    from ssd_lightning.training.batch_scaling import split_scaling
    from ssd_lightning.training.compilation import compile_network
    from ssd_lightning.training.devices import check_devices, choose_device
    from ssd_lightning.training.host_memory import keep_freed_memory

    num_devices = check_devices(config.trainer.accelerator, config.trainer.devices) * config.trainer.num_nodes
    device = choose_device("cpu" if config.trainer.accelerator == "cpu" else "auto")
    batch_size = config.trial_batch_size or config.data.batch_size
    if device.type == "cpu":
        keep_freed_memory()
        batch_size = config.trial_batch_size or min(batch_size, MOST_ON_A_PROCESSOR)
    batches = endless_batches(examination, config, batch_size)
    if batches is None:
        return None
    torch.manual_seed(config.seed)
    net = net.to(device)
    if config.channels_last:
        net = net.to(memory_format=torch.channels_last)
    compile_network(net, config.compile)
    loss = instantiate(config.loss, _convert_="all").to(device).train()
    settings, _ = split_scaling(config.optimizer, batch_size)  # the rate of three steps does not matter
    optimizer = instantiate(settings, _convert_="all")(net.parameters())
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(str(config.trainer.precision))

    def step() -> None:
        images, targets = next(batches)
        with torch.autocast(device.type, half, enabled=half is not None):
            losses = loss(net(images.to(device, non_blocking=True)), targets)
        (losses["loc"] + losses["cls"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    try:
        first = [(images.to(device), targets) for images, targets in (next(batches) for _ in range(2))]
        losses = first_losses(net, loss, first)
        seconds = time_steps(step, config.trial_steps, device)
        peak = peak_memory_mib(step, device)
    except torch.OutOfMemoryError as error:
        sentence = f"a step with a batch of {batch_size} does not fit into the memory of {device}: "
        examination.findings.append(Finding("error", "memory", "train", sentence + str(error).splitlines()[0]))
        return None
    examination.findings += first_loss_findings(losses)
    weights = sum(_bytes(parameter) for parameter in net.parameters()) / MIB
    state = [value for values in optimizer.state.values() for value in values.values() if torch.is_tensor(value)]
    estimate = run_estimate(
        seconds_a_step=seconds,
        measured_batch_size=batch_size,
        batch_size=config.data.batch_size,
        num_pictures=len(examination.datasets["train"].records),
        num_devices=num_devices,
        max_epochs=config.trainer.max_epochs,
        max_steps=config.trainer.max_steps,
        batches_a_step=config.trainer.accumulate_grad_batches,
        activations_mib=None if peak is None else max(0.0, peak - weights),  # the gradients are among it
        fixed_mib=2 * weights + sum(map(_bytes, state)) / MIB,
    )
    where = f"{device.type}, {config.trainer.precision}"
    return {"where": where, "losses": losses, "estimate": estimate}


def _bytes(tensor: "torch.Tensor") -> int:
    return tensor.numel() * tensor.element_size()


def endless_batches(
    examination: Examination, config: "DictConfig", batch_size: int
) -> "Iterator[tuple[torch.Tensor, Any]] | None":
    """Read and augment batches of pictures that are known to be sound, as the run does; None if there are none."""
    import torch
    from hydra.utils import instantiate
    from torch.utils.data import DataLoader, RandomSampler

    from ssd_lightning.data.dataset import collate
    from ssd_lightning.training.datamodule import spare_workers

    dataset = examination.datasets["train"]
    facts = examination.facts
    sound = [r for r in dataset.records if r.image_path in facts and facts[r.image_path].problem is None]
    if not sound:
        return None
    dataset.records = sound
    dataset.transform = instantiate(config.augmentation, _convert_="all")
    workers = spare_workers(1) if config.data.num_workers is None else config.data.num_workers
    steps = config.trial_steps + 4  # two of the first loss, one to warm up, one for memory
    generator = torch.Generator().manual_seed(config.seed)
    sampler = RandomSampler(dataset, replacement=True, num_samples=steps * batch_size, generator=generator)
    return iter(DataLoader(dataset, batch_size, sampler=sampler, num_workers=workers, collate_fn=collate))


def training_command(config: "DictConfig", overrides: Sequence[str], *, choice: str | None, directory: Path) -> str:
    """Write the command that trains with the fitted priors.

    Args:
        config: of this command, as composed.
        overrides: of this command.
        choice: of `priors=`.
        directory: that has `priors/`.
    """
    from omegaconf import OmegaConf

    left_out = (*OWN_SETTINGS, "priors", "net.levels", "hydra.run.dir")
    kept = [text for text in overrides if text.lstrip("+~").partition("=")[0] not in left_out]
    words = ["python", "-m", "ssd_lightning.train", "--config-dir", str(directory), *kept, f"priors={FITTED}"]
    path = find_folder("conf") / "priors" / f"{choice}.yaml"
    # What a recipe sets comes after the groups, so that its priors would be merged into the fitted ones.
    as_stated = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else None
    if OmegaConf.to_container(config.priors) != as_stated:
        words.append("net.levels=${priors.fitted}")
    return shlex.join(words)


def print_report(report: Mapping[str, Any], *, lines: int, directory: Path) -> None:
    """Print what was found, the worst first, and where all of it is."""
    from ssd_lightning.visualization.health_tables import print_coverage, print_findings, print_splits, print_trial

    everything = str(directory / "doctor.json")
    print_findings(report["findings"], lines=lines, everything_in=everything)
    print_splits(report["splits"])
    coverage, priors, trial = report["coverage"], report["priors"], report["trial"]
    if coverage is not None:
        after = None if priors is None else priors["coverage"]
        print_coverage(coverage, after, lines=lines, everything_in=everything)
    if trial is not None:
        print_trial(trial["losses"], trial["estimate"], where=trial["where"])
    print(f"\n{report['pictures_decoded']} pictures decoded; all findings: {everything}")
    if coverage is not None:
        print(f"plot:   {directory / 'coverage.png'}")
    if priors is not None:
        print(f"priors: {priors['file']}, used by\n  {priors['command']}")
    if not report["spoils_the_run"]:
        print("nothing would spoil the run")
    elif report["on_error"] == "raise":
        print("something would spoil the run (data.on_error=skip leaves unsound objects and pictures out)")
    else:
        print("something would spoil the run")


if __name__ == "__main__":
    main()
