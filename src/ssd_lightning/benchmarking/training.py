"""A training step of SSD300 on VGG16, compared with torchvision's, with the data on the device."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import ssd300_vgg16

from ssd_lightning.benchmarking.loss import random_targets
from ssd_lightning.benchmarking.sides import Side
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.memory import keep_freed_memory, peak_memory_mib
from ssd_lightning.models.ssd import SSD
from ssd_lightning.timing import Comparison, seconds_of, synchronize, time_pairs
from ssd_lightning.training.compilation import compile_network
from ssd_lightning.types import Target

Precision = Literal["float32", "bfloat16"]
Step = Callable[..., object]
make_sgd = partial(torch.optim.SGD, lr=1e-4, momentum=0.9, weight_decay=5e-4)


def torchvision_ssd300(num_classes: int) -> nn.Module:
    """Build torchvision's SSD300 without weights, for a number of classes plus the background."""
    return ssd300_vgg16(weights=None, weights_backbone=None, num_classes=num_classes + 1)


@dataclass(frozen=True)
class Peer:
    """Training settings of torchvision's SSD.

    Args:
        build: builds the network for a number of classes, without the background.
        channels_last: memory layout of its weights.
        fused: one kernel for the step of all weights.
        compile_mode: for its backbone and head; the rest works on lists of any length.
    """

    build: Callable[..., nn.Module] = torchvision_ssd300
    channels_last: bool = False
    fused: bool = False
    compile_mode: str | None = None

    @property
    def name(self) -> str:
        """Name in the tables."""
        settings = {"channels_last": self.channels_last, "fused SGD": self.fused}
        settings[f"compile={self.compile_mode}"] = self.compile_mode is not None
        return ", ".join(["torchvision SSD", *(setting for setting, is_on in settings.items() if is_on)])


def peers_on(device: torch.device, compile_mode: str | None = None) -> tuple[Peer, ...]:
    """Return the peer in its default setting and, last, in its best setting on a device."""
    if device.type == "cpu":
        return Peer(), Peer(channels_last=True)
    return Peer(), Peer(channels_last=True, fused=True, compile_mode=compile_mode and "default")


def compare_training(
    *,
    net: SSD,
    pairs: int,
    device: torch.device,
    batch_size: int = 32,
    precision: Precision = "float32",
    boxes: tuple[int, int] = (1, 6),
    compile_mode: str | None = None,
    peers: Sequence[Peer] | None = None,
    apart: bool | None = None,
    matrix_size: int | None = None,
) -> list[Comparison]:
    """Compare forward, loss, backward and SGD step of one batch: speed, memory, and the use of the matrix units.

    Both sides use the same images, objects and precision. The peer is measured in its default and in its best setting.
    On a CPU each side has its own process, since a run of this project keeps freed memory there
    (`memory`).

    Args:
        net: SSD300 on VGG16, untrained.
        pairs: number of timings of each side.
        device: device of both trainings.
        batch_size: B.
        precision: precision of the network; losses are always float32.
        boxes: smallest and largest number of ground-truth boxes of an image.
        compile_mode: for this project's network, see `training.compilation`.
        peers: the compared settings of the peer, the best one last; None for `peers_on`.
        apart: run each side in its own process; None: only on a CPU.
        matrix_size: rows of the matrix product that serves as reference for the matrix units; None: 8192 in bfloat16 on
            a GPU, otherwise it is not measured.
    """
    peers = peers_on(device, compile_mode) if peers is None else peers
    apart = device.type == "cpu" if apart is None else apart
    if matrix_size is None and device.type == "cuda" and precision == "bfloat16":
        matrix_size = 8192
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch_size, 3, *net.image_size), dtype=torch.uint8, generator=generator)
    images, targets = images.to(device), random_targets(batch_size, net.num_classes, boxes)
    flops = batch_size * training_flops(net)
    make_ours = partial(OurStep, net, images, targets, precision, compile_mode)
    setting = f"SSD300-VGG16, forward + loss + backward + SGD, batch {batch_size}, {precision}, {device.type}"
    if compile_mode is not None:
        setting += f", compile={compile_mode}"
    comparisons = []
    with _side(make_ours, apart) as ours:
        for peer in peers:
            make_theirs = partial(peer_step, images, targets, net.num_classes, precision, peer)
            with _side(make_theirs, apart) as theirs:
                seconds = time_pairs(ours, theirs, pairs=pairs, device=device, warmup=1 if device.type == "cpu" else 3)
            ours_per_s, theirs_per_s = (tuple(batch_size / one for one in side) for side in seconds)
            bar = _bar(device, precision, peer)
            comparisons.append(Comparison("train", setting, peer.name, ours_per_s, theirs_per_s, "images/s", bar=bar))
    step, their_step = (make_ours(), make_theirs()) if apart else (ours, theirs)
    memory = _peak_of_a_step(step, device), _peak_of_a_step(their_step, device)
    if memory[0] is not None and memory[1] is not None:
        comparisons.append(
            Comparison(
                part="train",
                setting=f"peak memory of a step: {setting}",
                peer=peer.name,
                ours=(memory[0],),
                theirs=(memory[1],),
                unit="MiB",
                bar=1.0,
                at_most=True,
                note="tensors beyond weights and momentum, at the peak",
            )
        )
    of_loss, of_step = zip(*(loss_seconds(step, device) for _ in range(pairs)), strict=True)
    comparisons.append(
        Comparison(
            part="train",
            setting=f"matching and loss, with the gradient of the output: {setting}",
            peer="the whole step",
            ours=of_loss,
            theirs=of_step,
            bar=0.05 if device.type == "cuda" else None,
            at_most=True,
        )
    )
    if matrix_size is not None:
        comparisons.append(
            Comparison(
                part="train",
                setting=f"use of the matrix units: {setting}",
                peer=f"bfloat16 matrix product of {matrix_size} x {matrix_size}",
                ours=tuple(flops / batch_size * speed for speed in comparisons[0].ours),
                theirs=tuple(matrix_flops(device, matrix_size) for _ in range(pairs)),
                unit="FLOP/s",
                bar=0.45,
            )
        )
    return comparisons


@contextmanager
def _side(make: Callable[[], Step], apart: bool) -> Iterator[Step]:
    if apart:
        with Side(make) as side:
            yield side
    else:
        yield make()


def _bar(device: torch.device, precision: Precision, peer: Peer) -> float | None:
    """Return the target ratio: on a CPU against the peer's default setting, on a GPU in bfloat16 against its best."""
    if device.type == "cpu":
        return None if peer.channels_last else 1.15
    return 2.0 if precision == "bfloat16" else None


def _peak_of_a_step(step: Step, device: torch.device) -> float | None:
    step()  # creates the momentum
    return peak_memory_mib(step, device)


def training_flops(net: SSD, batch_size: int = 2) -> float:
    """Count the operations of convolutions and products for one image, forward and backward.

    Args:
        net: the network, not compiled; it is not changed.
        batch_size: batch size for counting; batch norm needs at least two values.
    """
    copy = deepcopy(net).to("meta").train()
    with FlopCounterMode(display=False) as counter:
        output = copy(torch.empty(batch_size, 3, *net.image_size, device="meta"))
        (output.class_logits.sum() + output.box_offsets.sum()).backward()
    return counter.get_total_flops() / batch_size


class OurStep:
    """A training step as in a run with the default settings.

    Args:
        net: the network.
        images: uint8 `[B, 3, H, W]`, on the training device.
        targets: B targets on the host.
        precision: precision of the network.
        compile_mode: see `training.compilation`.
    """

    def __init__(
        self, net: SSD, images: Tensor, targets: list[Target], precision: Precision, compile_mode: str | None
    ) -> None:
        if images.device.type == "cpu":
            keep_freed_memory()
        self.net = net.to(images.device).to(memory_format=torch.channels_last).train()
        compile_network(self.net, compile_mode)
        self.loss, self.optimizer = MultiBoxLoss().train(), make_sgd(net.parameters(), fused=True)
        self.images, self.targets, self.precision = images, targets, precision

    def __call__(self, mark: Callable[[], object] | None = None) -> None:
        """Do the step.

        Args:
            mark: called between network and loss, and when each gradient of the network's output is ready.
        """
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            output = self.net(self.images)
            if mark is not None:
                mark()
                for tensor in (output.box_offsets, output.class_logits):
                    tensor.register_hook(lambda gradient: mark())
            losses = self.loss(output, self.targets)
        (losses["loss_box"] + losses["loss_cls"]).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def loss_seconds(step: Step, device: torch.device) -> tuple[float, float]:
    """Return the seconds from the network's output to its gradient, and of the whole step, by the device's clock.

    Args:
        step: an `OurStep`.
        device: device of the step.
    """
    marks: list[Any] = []

    def mark() -> None:
        marks.append(_now(device))

    synchronize(device)
    mark()
    step(mark)
    mark()
    synchronize(device)
    begin, output, *_, gradient, end = marks
    return _between(output, gradient), _between(begin, end)


def _now(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(begin: Any, end: Any) -> float:
    return end - begin if isinstance(begin, float) else begin.elapsed_time(end) / 1000


def peer_step(images: Tensor, targets: list[Target], num_classes: int, precision: Precision, peer: Peer) -> Step:
    """Build a training step as in torchvision's reference.

    Args:
        images: uint8 `[B, 3, 300, 300]`.
        targets: B targets; torchvision has them on the device.
        num_classes: C, without the background.
        precision: precision of the network.
        peer: the network and settings of the peer.
    """
    device = images.device
    memory_format = torch.channels_last if peer.channels_last else torch.contiguous_format
    net = peer.build(num_classes)
    net = net.to(device).to(memory_format=memory_format).train()
    if peer.compile_mode is not None:
        for name in ("backbone", "head"):
            net.get_submodule(name).compile(mode=peer.compile_mode)
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = make_sgd(trained, fused=peer.fused)
    scaled = list(images.float() / 255)
    size = torch.tensor([images.shape[-1], images.shape[-2]] * 2)
    wanted = [
        {"boxes": (target["boxes"] * size).to(device), "labels": target["labels"].to(device)} for target in targets
    ]

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            losses = net(scaled, wanted)
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def matrix_flops(device: torch.device, size: int = 8192) -> float:
    """Measure the operations per second of a bfloat16 matrix product on a device."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds_of(lambda: a @ b, device)
    repeats = 10
    return repeats * 2 * size**3 / seconds_of(lambda: [a @ b for _ in range(repeats)], device)
