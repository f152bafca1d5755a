"""How large the networks of the family are, and how fast they detect in one image, as checkpoint and as exported file.

    python benchmarks/family.py                                              # all networks, torch's number of threads
    python benchmarks/family.py --networks "TinySSD" --threads 1 --runtimes PyTorch ncnn

Each call reads no file: it gets an image of 500 x 375 pixels, resizes it, runs the network and post-processes its
output. The weights are random, and no detection passes the score threshold. Every runtime is timed in turns with
torchvision's SSDLite320-MobileNetV3 in PyTorch. OUT/family.json has all values and is written after each network.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY / "tests")]

from results import Comparison, as_markdown
from speed_training import make_network, torchvision_ssdlite320

from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.export.converters import write_ncnn
from ssd_lightning.inference.export.files import write_onnx, write_safetensors
from ssd_lightning.inference.runtime.description import network_files
from ssd_lightning.memory import keep_freed_memory
from ssd_lightning.models import PostProcess
from ssd_lightning.timing import time_pairs
from ssd_lightning.training.record import run_record
from ssd_lightning.visualization.tables import TextTable, quantity

NETWORKS = {
    "TinySSD": ["model=tiny_ssd"],
    "SSDLite320-MobileNetV3": ["model=torchvision_ssdlite320"],
    "SSDLite320-MobileNetV2": ["model=ssdlite320", "backbone=mobilenet_v2"],
    "SSDLite320-MobileNetV2, stride 8": ["model=ssdlite320_p3"],
    "FPNLite320-MobileNetV2": ["model=fpnlite320"],
    "FPNLite640-MobileNetV2": ["model=fpnlite640"],
    "SSD300-VGG16": ["model=ssd300", "backbone=vgg16"],
    "SSD512-VGG16": ["model=ssd512", "backbone=vgg16"],
}
"""Name -> overrides of the training command."""
THRESHOLD = 0.3
"""Random scores stay below it: they are near 1 / (classes + 1), or near .01 with focal loss."""


def main() -> None:
    """Measure the chosen networks one by one."""
    arguments = parse()
    keep_freed_memory(torch.device("cpu"))  # as in a prediction
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"run": run_record(seed=0, device="cpu"), "networks": []}
    for name in arguments.networks:
        print(f"measuring {name} ...", file=sys.stderr)
        record["networks"].append({"name": name, **measure(NETWORKS[name], arguments.runtimes, arguments.pairs)})
        (arguments.out / "family.json").write_text(json.dumps(record, indent=2) + "\n")
    print(as_markdown(table_of(record["networks"], arguments.runtimes)), end="")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS], metavar="NAME")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=[*RUNTIMES], metavar="NAME")
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--pairs", type=int, default=15, help="timings of each side")
    parser.add_argument("--out", type=Path, default=Path("outputs/family"), help="folder of family.json")
    return parser.parse_args()


def measure(overrides: Sequence[str], runtimes: Iterable[str], pairs: int) -> dict[str, Any]:
    """Measure one network in each runtime.

    Returns:
        `parameters`, `multiply_adds`, and `runtimes`: a list of `Comparison` as records, with `file_mib`.
    """
    net = make_network(*overrides)
    names = [str(number) for number in range(net.num_classes)]
    detector = Detector(net, class_names=names, postprocess=PostProcess(score_threshold=THRESHOLD))
    image = np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(torch.zeros(1, 3, *net.image_size))
    compared = []
    for runtime in runtimes:
        with TemporaryDirectory() as folder:
            one, files = RUNTIMES[runtime](detector, Path(folder))
            mib = sum(file.stat().st_size for file in files) / 2**20
            compared.append(compare(one, image, runtime, pairs).as_record() | {"file_mib": mib})
    return {
        "parameters": sum(weight.numel() for weight in net.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,
        "runtimes": compared,
    }


def compare(detector: Detector, image: np.ndarray, runtime: str, pairs: int) -> Comparison:
    """Time the detector in turns with torchvision's SSDLite320."""
    peer = torchvision_ssdlite320(20).eval()
    peer.score_thresh = THRESHOLD

    def theirs() -> None:
        with torch.inference_mode():
            peer([torch.from_numpy(image).permute(2, 0, 1) / 255])

    seconds = time_pairs(lambda: detector(image), theirs, pairs=pairs, device=torch.device("cpu"), warmup=3)
    return Comparison("family", runtime, "torchvision SSDLite320-MobileNetV3", *seconds)


def in_pytorch(detector: Detector, folder: Path) -> tuple[Detector, list[Path]]:
    """Save the detector, and read it again."""
    path = folder / "detector.safetensors"
    write_safetensors(detector, path)
    return Detector.load(path), [path]


def exported(
    detector: Detector, folder: Path, *, write: Callable[[Detector, Path], object], suffix: str, **loading: Any
) -> tuple[Detector, list[Path]]:
    """Write a file and open it in its runtime; returns all files too."""
    path = folder / f"detector{suffix}"
    write(detector, path)
    return Detector.load(path, **loading), network_files(path)


RUNTIMES: dict[str, Callable[[Detector, Path], tuple[Detector, list[Path]]]] = {
    "PyTorch": in_pytorch,
    "onnxruntime": partial(exported, write=partial(write_onnx, preprocessing=True, nms=True), suffix=".onnx"),
    "OpenVINO": partial(
        exported, write=partial(write_onnx, preprocessing=True, nms=True), suffix=".onnx", backend="openvino"
    ),
    "ncnn": partial(exported, write=write_ncnn, suffix=".param"),
}


def table_of(networks: Sequence[dict[str, Any]], runtimes: Sequence[str]) -> TextTable:
    """Tabulate the networks: size, and the median time in each runtime with how many times faster than the peer."""
    rows = []
    for network in networks:
        times = [f"{quantity(median(one['ours']), 's')} ({one['ratio']:.2g} x)" for one in network["runtimes"]]
        size = f"{network['parameters'] / 1e6:.1f} M", f"{network['multiply_adds'] / 1e9:.2f} G"
        file = quantity(network["runtimes"][0]["file_mib"], "MiB")
        rows.append((network["name"], *size, file, *times))
    return TextTable(("network", "parameters", "multiply-adds", "file", *runtimes), rows)


if __name__ == "__main__":
    main()
