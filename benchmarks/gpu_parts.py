"""The parts of `gpu.py`, each run by it in a process of its own: `gpu_parts.py PART SETTINGS END`.

Every result is written as soon as it is measured, so that a part that is killed loses only the one in work.
"""

import csv
import gc
import json
import math
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from results import Comparison, Point
from speed_images import TORCHVISION_SSD300, compare_predict
from speed_tensors import compare_loss, compare_postprocess
from speed_training import Step, compare_training, make_network, our_step, torchvision_ssd300, torchvision_ssdlite320
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from helpers.random_ssd import random_targets
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.memory import peak_memory_mib
from ssd_lightning.models import SSD
from ssd_lightning.timing import seconds_of

REPOSITORY = Path(__file__).resolve().parents[1]
VGG16 = ("backbone=vgg16", "backbone.weights=null")
BESIDE_TRAINING_S = 34
"""Of a training command on an H200: start, test and end, and the step that it is compared with."""


@dataclass(frozen=True)
class Scale:
    """How large everything is; the defaults are those of a GPU."""

    device: torch.device = field(default_factory=lambda: torch.device("cuda"))
    precision: str = "bfloat16"
    pairs: int = 10
    network: tuple[str, ...] = VGG16
    peer: Callable[[int], nn.Module] = torchvision_ssd300
    batches: tuple[int, ...] = (32, 64)
    part_batches: tuple[int, ...] = (1, 64)
    growing_batches: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    matrix_size: int = 8192
    scratch_network: tuple[str, ...] = ("backbone=vgg16_bn", "backbone.weights=null")
    """Of the real run from random weights."""
    run_batch: int = 32
    copies: int = 8
    """An epoch of the real runs has each image so often, and so lasts seconds, as one of a usual set does."""
    same_steps: int = 10
    same_batch: int = 4
    most_seconds: float = 80.0
    most_steps: int = -1
    """Of a real run, whichever is first; -1 is no bound."""


def rehearsal() -> Scale:
    """Give sizes that a processor gets through in a minute; compiled code is not compiled."""
    torch.compiler.set_stance("force_eager")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the training commands
    return Scale(
        device=torch.device("cpu"),
        precision="float32",  # a processor without AVX-512 takes ten times as long in bfloat16
        pairs=1,
        network=("backbone=tiny", "image_size=[128,128]"),
        peer=torchvision_ssdlite320,
        batches=(2, 3),
        part_batches=(1, 2),
        growing_batches=(2, 4),
        matrix_size=64,
        scratch_network=("backbone=tiny", "image_size=[128,128]"),
        run_batch=2,
        copies=1,
        same_steps=2,
        same_batch=2,
        most_steps=4,
    )


class Part:
    """What a part works with: its settings, its time, and where its results go.

    Args:
        name: of the part.
        settings: as `gpu.py` gives them.
        end: time of the clock at which it is killed.
    """

    def __init__(self, name: str, settings: dict[str, Any], end: float) -> None:
        self.name, self.settings, self.end = name, settings, end
        self.has_failed = False
        self.scale = rehearsal() if settings["rehearse"] else Scale()

    @property
    def seconds_left(self) -> float:
        """Until it is killed."""
        return self.end - time.time()

    def write(self, kind: str, row: dict[str, Any]) -> None:
        """Add a result."""
        line = json.dumps({"part": self.name, "kind": kind, "row": row}, default=str)
        with open(self.settings["rows"], "a") as file:
            file.write(f"{line}\n")
        if kind != "run":
            print(line, flush=True)

    def compared(self, comparisons: list[Comparison]) -> None:
        """Add comparisons with a peer."""
        for comparison in comparisons:
            self.write("comparisons", comparison.as_record())

    def fact(self, what: str, value: float, unit: str = "") -> None:
        """Add a single number."""
        self.write("facts", {"what": what, "value": value, "unit": unit})

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Write down what goes wrong, and go on with what comes next."""
        print(f"{what}: {self.seconds_left:.0f} s left", flush=True)
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.has_failed = True
            reason = (str(error).strip().splitlines() or [""])[0]
            self.write("errors", {"what": what, "error": f"{type(error).__name__}: {reason}"[:500]})
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def run_tests(part: Part) -> None:
    """Run the tests that need a GPU; without one, what of them a processor can do."""
    import pytest

    class Recorder:
        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" or not report.passed:
                lines = report.longreprtext.splitlines() if report.failed else []
                message = next((line[1:].strip() for line in lines if line.startswith("E ")), "")
                row = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 2)}
                part.write("tests", {**row, "message": message})
                part.has_failed |= report.failed

    # Not the settings of pyproject.toml: plug-ins of theirs may be missing where the card is.
    arguments = ["-o", "addopts=", "-p", "no:cacheprovider", "-q", "-m", "gpu"]
    arguments += [f"--basetemp={part.settings['scratch']}/t"]
    files = ["tests/gpu", "tests/training/test_no_sync.py", "tests/training/test_distribution.py"]
    code = pytest.main([*arguments, *(str(REPOSITORY / file) for file in files)], plugins=[Recorder()])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {code!r}")


def measure_step(part: Part) -> None:
    """Compare a training step, as it is and compiled, with torchvision's in its best setting."""
    sizes = part.scale.batches
    for mode, peer_mode, batches in ((None, None, sizes), ("default", None, sizes), ("default", "default", sizes[:1])):
        for batch_size in batches:
            with part.attempt(f"step of {batch_size}, compile={mode}, torchvision's compile={peer_mode}"):
                compare_step(part, batch_size, mode, peer_mode)


def compare_step(part: Part, batch_size: int, mode: str | None, peer_mode: str | None) -> None:
    """Compare one training step with torchvision's, and its operations a second with those of a matrix product."""
    torch._dynamo.reset()  # else the second size would be compiled for all sizes
    net = make_network(*part.scale.network)
    flops = training_flops(net)
    speed, *memory = compare_training(
        net=net,
        peer=part.scale.peer(net.num_classes),
        device=part.scale.device,
        batch_size=batch_size,
        pairs=part.scale.pairs,
        precision=part.scale.precision,
        compile_mode=mode,
        peer_compile_mode=peer_mode,
        apart=False,
    )
    units = Comparison(
        part="matrix units",
        setting=speed.setting,
        peer=f"bfloat16 matrix product of {part.scale.matrix_size} x {part.scale.matrix_size}",
        ours=tuple(flops * images_per_s for images_per_s in speed.ours),
        theirs=tuple(matrix_flops(part.scale.device, part.scale.matrix_size) for _ in speed.ours),
        unit="FLOP/s",
    )
    part.compared([speed, *memory, units])


def training_flops(net: SSD, batch_size: int = 2) -> float:
    """Count the operations of convolutions and products for one image, forward and backward; batch norm needs two."""
    copy = deepcopy(net).to("meta").train()
    with FlopCounterMode(display=False) as counter:
        output = copy(torch.empty(batch_size, 3, *net.image_size, device="meta"))
        (output.class_logits.sum() + output.box_offsets.sum()).backward()
    return counter.get_total_flops() / batch_size


def matrix_flops(device: torch.device, size: int) -> float:
    """Measure the operations per second of a bfloat16 matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds_of(lambda: a @ b, device)
    repeats = 10
    return repeats * 2 * size**3 / seconds_of(lambda: [a @ b for _ in range(repeats)], device)


def measure_parts(part: Part) -> None:
    """Compare loss, post-processing and prediction with torchvision's."""
    settings: dict[str, Any] = {"pairs": part.scale.pairs, "device": part.scale.device}
    for batch_size in part.scale.part_batches:
        with part.attempt(f"loss of {batch_size}"):
            part.compared([compare_loss(**settings, batch_size=batch_size)])
        with part.attempt(f"post-processing of {batch_size}"):
            part.compared(compare_postprocess(**settings, batch_size=batch_size))
        with part.attempt(f"prediction of {batch_size}"):
            net = make_network(*TORCHVISION_SSD300, "backbone.weights=null")
            part.compared([compare_predict(**settings, net=net, batch_size=batch_size)])


def measure_more(part: Part) -> None:
    """Measure how time and memory grow with the batch, then the step with CUDA graphs."""
    scale, before = part.scale, None
    for batch_size in scale.growing_batches:
        with part.attempt(f"batch {batch_size}"):
            step = step_on_device(part, scale.network, batch_size)
            memory = peak_memory_mib(step, scale.device)
            seconds = median(seconds_of(step, scale.device) for _ in range(scale.pairs))
            point = Point(
                part=f"training, {scale.precision}",
                axis="batch",
                size=batch_size,
                ms_a_image=seconds * 1e3 / batch_size,
                mib_a_image=None if memory is None else memory / batch_size,
            )
            part.write("growth", point.as_record(before))
            before = point
            del step
    batch_size = scale.batches[0]
    with part.attempt(f"step of {batch_size}, compile=reduce-overhead"):
        compare_step(part, batch_size, "reduce-overhead", None)


def step_on_device(part: Part, network: tuple[str, ...], batch_size: int) -> Step:
    """Make a training step of this project's with its data on the device, and warm it up."""
    net = make_network(*network)
    images = torch.randint(0, 256, (batch_size, 3, *net.image_size), dtype=torch.uint8).to(part.scale.device)
    step = our_step(net, images, random_targets(batch_size, net.num_classes), part.scale.precision, None)
    for _ in range(1 if part.scale.device.type == "cpu" else 3):
        step()
    return step


def measure_training(part: Part) -> None:
    """Train as a user does, and see that both devices take the same steps."""
    data, weights = training_data(part), mobilenet_weights(part)
    networks = {
        "SSD300-VGG16-BN from scratch": part.scale.scratch_network,
        f"SSD300-MobileNetV2 from {'ImageNet' if weights else 'scratch'}": (
            "backbone=mobilenet_v2",
            f"backbone.weights={weights or 'null'}",
        ),
    }
    with part.attempt("the same steps on both devices"):
        compare_devices(part, data)
    for index, (name, arguments) in enumerate(networks.items()):
        with part.attempt(name):
            seconds = min(part.scale.most_seconds, part.seconds_left / (len(networks) - index) - BESIDE_TRAINING_S)
            if seconds < 1:
                raise RuntimeError(f"only {part.seconds_left:.0f} s are left")
            train(part, name, data, arguments, seconds)


def training_data(part: Part) -> list[str]:
    """Lay out the images that are trained on and give the options for them.

    Raises:
        FileNotFoundError: they are not there; a rehearsal then has a toy set.
    """
    source, root = Path(part.settings["data"]), Path(part.settings["scratch"]) / "data"
    if not (source / "train" / "images").is_dir():
        if not part.settings["rehearse"]:
            raise FileNotFoundError(f"{source}: there is no train/images; --data= says where a YOLO data set lies")
        return ["data=toy", f"data.root={root}", "data.num_train=8", "data.num_val=2", "data.num_test=2"]
    few = slice(8) if part.settings["rehearse"] else slice(None)
    for split, copies in (("train", part.scale.copies), ("valid", 1)):
        for folder in ("images", "labels"):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
        for image in sorted((source / split / "images").iterdir())[few]:
            label = source / split / "labels" / f"{image.stem}.txt"
            for copy in range(copies):
                shutil.copyfile(image, root / split / "images" / f"{copy}_{image.name}")
                if label.is_file():
                    shutil.copyfile(label, root / split / "labels" / f"{copy}_{image.stem}.txt")
    names = [
        line
        for line in (source / "data.yaml").read_text().splitlines()
        if not line.startswith(("train", "val", "test"))
    ]
    (root / "data.yaml").write_text(
        "\n".join(["train: train/images", "val: valid/images", "test: valid/images", *names])
    )
    # The last weights are scored: nothing chooses between checkpoints on the images that are reported on.
    return ["data=yolo_folder", f"data.root={root}", "data.val_fraction=0.0", "data.test_split=test"]


def mobilenet_weights(part: Part) -> Path | None:
    """Find torchvision's ImageNet weights.

    Raises:
        FileNotFoundError: they are not there; a rehearsal starts from scratch then.
    """
    folder = Path(part.settings["weights"])
    found = sorted(folder.glob("mobilenet_v2*.pth"))
    if not found and not part.settings["rehearse"]:
        raise FileNotFoundError(f"{folder}: there is no mobilenet_v2*.pth; --weights= says where it lies")
    return found[0] if found else None


def train(part: Part, name: str, data: list[str], network: tuple[str, ...], seconds: float) -> None:
    """Train by the command line for a while and read what the run wrote.

    Args:
        part: where the results go.
        name: of the run.
        data: options that name them.
        network: options that name it.
        seconds: of training; start, test and end come on top.
    """
    scale, run_dir = part.scale, Path(part.settings["scratch"]) / "runs" / network[0].partition("=")[2]
    options = [
        *("optimizer=adamw", "scheduler.milestones=[]", "scheduler.warmup_steps=100", "trainer.gradient_clip_val=10.0"),
        *("callbacks=[default,ema]", "callbacks.ema.decay=0.99"),  # in place of a decay, which needs a known end
        *(f"data.batch_size={scale.run_batch}", "data.on_error=skip", f"seed={part.settings['seed']}"),
        *(f"trainer.max_time={{seconds: {math.ceil(seconds)}}}", "trainer.max_epochs=10000", "test=true"),
        f"trainer.max_steps={scale.most_steps}",
        *("trainer.enable_progress_bar=false", "report=false"),
        *("trainer.precision=bf16-mixed",) * (scale.precision == "bfloat16"),
        *("trainer.accelerator=cpu", "data.num_workers=0") * (scale.device.type == "cpu"),
    ]
    begin = time.perf_counter()
    command = [sys.executable, "-m", "ssd_lightning.train", *data, *network, *options, f"hydra.run.dir={run_dir}"]
    code = subprocess.run(command, check=False, timeout=max(1.0, part.seconds_left - 2)).returncode  # noqa: S603
    if code:
        raise RuntimeError(f"the training command ended with exit code {code}; log.txt has what it said")
    part.fact(
        f"{name}: the whole command, start, {seconds:.0f} s of training at most, and test",
        time.perf_counter() - begin,
        "s",
    )
    scores = json.loads((run_dir / "result.json").read_text())["scores"]
    for score in ("map_11point", "map_area", "map_50", "map"):
        part.fact(f"{name}: test/{score}", scores[f"test/{score}"])
    with (run_dir / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("speed/images_per_s")]
    if not rows:
        raise RuntimeError(f"{run_dir / 'metrics.csv'} has no speed: the run took too few steps")
    columns = {key: [float(row[key]) for row in rows] for key in rows[0] if key.startswith("speed/")}
    for key, values in columns.items():
        part.fact(f"{name}: {key.removeprefix('speed/')} (median)", median(values))
    part.fact(f"{name}: steps", max(float(row["step"]) for row in rows) + 1)
    step = step_on_device(part, network, scale.run_batch)
    alone = [scale.run_batch / seconds_of(step, scale.device) for _ in range(scale.pairs)]
    speed = Comparison(
        part="training",
        setting=f"{name}, from JPEG files, batch {scale.run_batch}, {scale.precision}, {scale.device.type}",
        peer="its step with SGD on data that lie on the device",
        ours=(median(columns["speed/images_per_s"]),),
        theirs=(median(alone),),
        unit="images/s",
    )
    part.compared([speed])


def compare_devices(part: Part, data: list[str]) -> None:
    """Take the same steps of SGD in float32 on the processor and on the device, and compare their losses.

    The network has no batch norm and learns slowly: where the last bit of a weight changes which negatives are the
    hardest, a network with batch norm is 2 % away after five steps on one and the same processor.
    """
    from ssd_lightning.assembly import make_data, set_up_machine
    from ssd_lightning.config import compose_config

    scale = part.scale
    options = [f"data.batch_size={scale.same_batch}", "data.num_workers=0", f"seed={part.settings['seed']}"]
    network = scale.network
    config = compose_config("train", [*data, *network, *options, "data.on_error=skip", "matmul_precision=highest"])
    set_up_machine(config)
    opened = make_data(config)
    batches = [batch for batch, _ in zip(opened.train_dataloader(), range(scale.same_steps), strict=False)]
    losses = [
        losses_of(make_network(*network, num_classes=len(opened.class_names)), batches, device)
        for device in (torch.device("cpu"), scale.device)
    ]
    differences = [abs(one - other) / abs(one) for one, other in zip(*losses, strict=True)]
    part.write(
        "facts",
        {
            "what": f"largest relative difference of the losses of {len(batches)} equal steps, cpu and "
            f"{scale.device.type}",
            "value": max(differences),
            "unit": "",
            "losses": losses,
        },
    )
    if max(differences) > 1e-3:
        raise AssertionError(f"losses differ by {max(differences):.2g}: {losses}")


def losses_of(net: SSD, batches: list[tuple[Tensor, Any]], device: torch.device) -> list[float]:
    """Train a network for some steps and give their losses."""
    net, loss = net.to(device).train(), MultiBoxLoss().train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, fused=True)
    found = []
    for images, targets in batches:
        total = torch.stack([*loss(net(images.to(device)), targets).values()]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        found.append(total.item())
    return found


WORK = {
    "tests": run_tests,
    "step": measure_step,
    "parts": measure_parts,
    "training": measure_training,
    "more": measure_more,
}


def main() -> int:
    """Run a part; gives 1 if something of it failed."""
    name, settings, end = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
    part = Part(name, settings, end)
    if part.scale.device.type == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA card; --rehearse runs the same code on the processor", file=sys.stderr)
        return 2
    from ssd_lightning.training.record import run_record

    versions = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    part.write("run", run_record(settings["seed"], **versions))
    with part.attempt(name):
        WORK[name](part)
    return int(part.has_failed)


if __name__ == "__main__":
    sys.exit(main())
