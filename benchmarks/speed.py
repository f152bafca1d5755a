"""Compare this project with its peers, part by part, in one process and one run.

    python benchmarks/speed.py                                   # all parts
    python benchmarks/speed.py --what loss training --device cuda --precision bfloat16 --compile default

Both sides do the same work in turns. A table shows how many times better this project is; OUT/speed.json has all values
and is written after each part.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY / "tests")]

from results import Comparison, comparison_table, growth_table
from speed_growth import AXES, measure_growth
from speed_images import TORCHVISION_SSD300, compare_data, compare_predict
from speed_start import compare_start
from speed_tensors import compare_loss, compare_metric, compare_postprocess
from speed_training import compare_training, make_network, torchvision_ssd300, torchvision_ssdlite320

from ssd_lightning.devices import choose_device
from ssd_lightning.memory import keep_freed_memory
from ssd_lightning.models import SSD
from ssd_lightning.training.record import run_record
from ssd_lightning.visualization.tables import print_table

PARTS = ("loss", "postprocess", "training", "data", "predict", "metric", "start", "growth")


def main() -> None:
    """Measure the chosen parts one by one, and write the results after each."""
    arguments = parse()
    device = choose_device(arguments.device)
    keep_freed_memory(device)  # as in training; it makes both sides faster
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"run": run_record(seed=0, device=str(device)), "comparisons": [], "growth": []}
    for part in arguments.what:
        print(f"measuring {part} ...", file=sys.stderr)
        with TemporaryDirectory() as folder:
            if part == "growth":
                record["growth"] = growth(arguments, device, Path(folder))
                print_table(growth_table(record["growth"]))
            else:
                found = [comparison.as_record() for comparison in compare(part, arguments, device, Path(folder))]
                record["comparisons"] += found
                print_table(comparison_table(found))
        (arguments.out / "speed.json").write_text(json.dumps(record, indent=2) + "\n")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's")
    parser.add_argument("--pairs", type=int, help="timings of each side; default: more where a run is short")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of a training step")
    parser.add_argument("--compile", metavar="MODE", help="torch.compile's mode of both networks of a training step")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmark"), help="folder of speed.json")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: small networks, few images")
    return parser.parse_args()


def compare(part: str, arguments: argparse.Namespace, device: torch.device, folder: Path) -> list[Comparison]:
    """Compare one part with its peer."""
    tiny, batch_size = arguments.tiny, arguments.batch_size
    pairs = {"pairs": arguments.pairs} if arguments.pairs else {}
    match part:
        case "loss":
            return [compare_loss(device=device, batch_size=batch_size, **pairs)]
        case "postprocess":
            return compare_postprocess(device=device, batch_size=batch_size, **pairs)
        case "training":
            network = ("backbone=tiny", "image_size=[128,128]") if tiny else ("backbone=vgg16",)
            return compare_training(
                net=make_network(*network),
                peer=torchvision_ssdlite320(20) if tiny else torchvision_ssd300(20),
                device=device,
                batch_size=batch_size,
                precision=arguments.precision,
                compile_mode=arguments.compile,
                peer_compile_mode=arguments.compile and "default",
                **pairs,
            )
        case "data":
            return [compare_data(images=2 if tiny else 64, folder=folder, **pairs)]
        case "predict":
            return [
                compare_predict(net=make_network(*TORCHVISION_SSD300), device=device, batch_size=size, **pairs)
                for size in dict.fromkeys((1, batch_size))
            ]
        case "metric":
            return [compare_metric(images=30 if tiny else 4952, **pairs)]
        case _:
            return compare_start(folder=folder, warmup=0 if tiny else 1, **pairs)


def growth(arguments: argparse.Namespace, device: torch.device, folder: Path) -> list[dict[str, Any]]:
    """Measure how the cost grows."""
    axes = {axis: sizes[:2] for axis, sizes in AXES.items()} | {"input": (300,)} if arguments.tiny else AXES
    backbone = "backbone=tiny" if arguments.tiny else "backbone=vgg16"

    def network(side: int) -> SSD:
        return make_network(backbone, f"image_size=[{side},{side}]")

    samples = 64 if arguments.tiny else 1024
    points = [*measure_growth(network, device=device, folder=folder, axes=axes, samples=samples)]
    return [point.as_record(before) for before, point in zip([None, *points], points, strict=False)]


if __name__ == "__main__":
    main()
