"""`python -m ssd_lightning.benchmark`: compare this project with its alternatives, in one run."""

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import TYPE_CHECKING, Any

from ssd_lightning.checks import require_choice, require_number
from ssd_lightning.config import compose_config, run_command
from ssd_lightning.errors import ConfigurationError

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from ssd_lightning.models import SSD
    from ssd_lightning.timing import Comparison

PARTS = {
    "loss": "loss",
    "postprocess": "postprocess",
    "data": "data",
    "metric": "metric",
    "train": "training",
    "predict": "predict",
    "start": "start",
    "growth": "data_growth",
}
"""The available measurements, and the module of `benchmarking` for each."""


def main() -> None:
    """Run the command."""
    run_command("benchmark", benchmark)


def benchmark(config: "DictConfig") -> dict[str, Any]:
    """Measure the selected parts one by one, and write the results after each.

    Args:
        config: the composed `conf/benchmark.yaml`.

    Returns:
        The content of `benchmark.json`.

    Raises:
        UserError: a setting is not usable, or a peer is not installed.
    """
    import torch

    from ssd_lightning.devices import choose_device
    from ssd_lightning.memory import keep_freed_memory
    from ssd_lightning.training.compilation import check_compile
    from ssd_lightning.training.record import run_record
    from ssd_lightning.visualization.benchmark_tables import as_markdown, comparison_table, growth_table, print_table

    parts = checked_parts(config)
    device = choose_device(config.device)
    check_compile(config.compile, device)
    output = writable_folder(config.output)
    check_installed(parts)
    if device.type == "cpu":
        keep_freed_memory()  # as in training; it makes both sides of each pair faster
    if config.threads:
        torch.set_num_threads(config.threads)
    record: dict[str, Any] = {"run": run_record(seed=0, device=str(device)), "comparisons": [], "growth": []}
    for part in parts:
        print(f"measuring {part} ...", file=sys.stderr)
        if part == "growth":
            record["growth"] = grow(device)
            print_table(growth_table(record["growth"]))
        else:
            measured = [comparison.as_record() for comparison in measure(part, config, device)]
            record["comparisons"] += measured
            print_table(comparison_table(measured))
        (output / "benchmark.json").write_text(json.dumps(record, indent=2) + "\n")
        tables = [comparison_table(record["comparisons"]), growth_table(record["growth"])]
        (output / "benchmark.md").write_text("\n".join(as_markdown(table) for table in tables if table.rows))
    print(f"figures: {output / 'benchmark.json'}, as tables in {output / 'benchmark.md'}")
    return record


def checked_parts(config: "DictConfig") -> list[str]:
    """Read the list of selected parts, and check the other settings.

    Raises:
        ConfigurationError: a value is not usable.
    """
    asked = as_list(config, "what")
    for part in asked:
        require_choice("what", part, ("all", *PARTS))
    require_number("batch_size", config.batch_size, 1, whole=True)
    for name in ("pairs", "threads"):
        if config[name] is not None:
            require_number(name, config[name], 1, whole=True)
    for precision in as_list(config, "precision"):
        require_choice("precision", precision, ("float32", "bfloat16"))
    for size in as_list(config, "predict_batch_sizes"):
        require_number("predict_batch_sizes", size, 1, whole=True)
    return list(PARTS) if "all" in asked else list(dict.fromkeys(asked))


def as_list(config: "DictConfig", name: str) -> list[Any]:
    """Read a setting that is one value or a list of values.

    Raises:
        ConfigurationError: the setting is empty.
    """
    from omegaconf import ListConfig

    value = config[name]
    values = list(value) if isinstance(value, ListConfig) else [value]
    if not values or None in values:
        raise ConfigurationError(
            f"{name} is {'null' if value is None else value}; it must be a value or a list of them"
        )
    return values


def writable_folder(path: Any) -> Path:
    """Create the folder `output`, and check that it is writable.

    Raises:
        ConfigurationError: it is not writable.
    """
    if path is None:
        raise ConfigurationError("output is null; it must be a folder")
    folder = Path(str(path))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ConfigurationError(f"output={folder}: cannot write there: {error.strerror}") from error


def check_installed(parts: Sequence[str]) -> None:
    """Import the packages that the parts need, so that a missing one is reported before the first measurement.

    Raises:
        ConfigurationError: a package is not installed.
    """
    for part in parts:
        try:
            module = import_module(f"ssd_lightning.benchmarking.{PARTS[part]}")
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"what={part} needs {error.name}, which is not installed") from error
        if part == "metric":
            module.check_peer()


def measure(part: str, config: "DictConfig", device: "torch.device") -> "list[Comparison]":
    """Compare one part with its peer."""
    pairs = config.pairs or PAIRS[part]
    with TemporaryDirectory() as folder:
        match part:
            case "loss":
                from ssd_lightning.benchmarking.loss import compare_loss

                return compare_loss(pairs=pairs, device=device, batch_size=config.batch_size)
            case "postprocess":
                from ssd_lightning.benchmarking.postprocess import compare_postprocess

                return compare_postprocess(pairs=pairs, device=device, batch_size=config.batch_size)
            case "data":
                from ssd_lightning.benchmarking.data import compare_data

                return compare_data(pairs=pairs, folder=Path(folder))
            case "metric":
                from ssd_lightning.benchmarking.metric import compare_metric

                return compare_metric(pairs=pairs)
            case "train":
                from ssd_lightning.benchmarking.training import compare_training

                found = []
                for precision in as_list(config, "precision"):
                    net = make_network("backbone=vgg16")
                    found += compare_training(
                        net=net,
                        pairs=pairs,
                        device=device,
                        batch_size=config.batch_size,
                        precision=precision,
                        compile_mode=config.compile,
                    )
                return found
            case "predict":
                from ssd_lightning.benchmarking.predict import compare_predict

                found = []
                for size in as_list(config, "predict_batch_sizes"):
                    net = make_network(*TORCHVISION_SSD300)
                    found += compare_predict(net=net, pairs=pairs, device=device, batch_size=size)
                return found
            case _:
                from ssd_lightning.benchmarking.start import compare_start

                return compare_start(pairs=pairs, folder=Path(folder))


def grow(device: "torch.device") -> list[dict[str, Any]]:
    """Measure how the cost grows."""
    from ssd_lightning.benchmarking.data_growth import measure_data
    from ssd_lightning.benchmarking.growth import exponents, measure_growth

    # One image takes a CPU a fifth of a second: 64 of them show as much as 256 would.
    points = list(
        measure_growth(
            lambda side: make_network("backbone=vgg16", f"image_size=[{side},{side}]"),
            device=device,
            most_network_batch=64 if device.type == "cpu" else 256,
        )
    )
    with TemporaryDirectory() as folder:
        points += measure_data(Path(folder))
    powers = exponents(points)
    return [{**point.as_record(), "exponent": power} for point, power in zip(points, powers, strict=True)]


def make_network(*overrides: str, num_classes: int = 20) -> "SSD":
    """Build an untrained network as `train` would with these overrides."""
    import torch

    from ssd_lightning.assembly import make_net

    torch.manual_seed(0)
    return make_net(compose_config("train", list(overrides)), num_classes, pretrained=False)


TORCHVISION_SSD300 = ("model=torchvision_ssd300", "backbone=vgg16", "+head.prior_probability=0.01")

PAIRS = {"loss": 15, "postprocess": 9, "data": 5, "metric": 1, "train": 3, "predict": 5, "start": 5}
"""Number of timings for each side: more where a run is short."""


if __name__ == "__main__":
    main()
