"""A training step of SSD300 on VGG16, beside torchvision's, with the data on the device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16 as torchvision_ssd300_vgg16

from ssd_lightning.benchmarking.loss import IMAGE_SIZE, random_targets
from ssd_lightning.benchmarking.memory import peak_memory_mib
from ssd_lightning.benchmarking.sides import Side
from ssd_lightning.benchmarking.timing import Comparison, seconds_of, time_pairs
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.models.ssd import SSD
from ssd_lightning.training.compilation import compile_network
from ssd_lightning.training.host_memory import keep_freed_memory
from ssd_lightning.types import Target

Precision = Literal["float32", "bfloat16"]

FLOP_A_PICTURE = 3 * 31.4e9 * 2
"""31.4 G multiplications and additions forward, and twice as many backward."""

BEST_PEER = "torchvision SSD, channels_last"
PEERS = {"torchvision SSD": torch.contiguous_format, BEST_PEER: torch.channels_last}

Step = Callable[[], object]
make_sgd = partial(torch.optim.SGD, lr=1e-4, momentum=0.9, weight_decay=5e-4)


def compare_training(
    *,
    net: SSD,
    pairs: int,
    device: torch.device,
    batch_size: int = 32,
    precision: Precision = "float32",
    boxes: tuple[int, int] = (1, 6),
    compile_mode: str | None = None,
) -> list[Comparison]:
    """Compare forward, loss, backward and SGD step of one batch: seconds, memory, and on a GPU the use of its units.

    Both sides have the same images and objects and compute in the same precision. The peer is measured as it comes and
    in the memory layout that this project has by default, which is its best setting. On a processor each side has a
    process of its own, since a run of this project has memory kept there (`training.host_memory`).

    Args:
        net: SSD300 on VGG16, untrained.
        pairs: how often each side is timed.
        device: where both are trained.
        batch_size: B.
        precision: of the network; losses are float32 in either case.
        boxes: fewest and most ground-truth boxes of an image.
        compile_mode: of this project's network, see `training.compilation`.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch_size, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8, generator=generator)
    images, targets = images.to(device), random_targets(batch_size, net.num_classes, boxes)
    make_ours = partial(our_step, net, images, targets, precision, compile_mode)
    setting = f"SSD300-VGG16, forward + loss + backward + SGD, batch {batch_size}, {precision}, {device.type}"
    if compile_mode is not None:
        setting += f", compile={compile_mode}"
    comparisons = []
    for peer, memory_format in PEERS.items():
        make_theirs = partial(peer_step, images, targets, net.num_classes, precision, memory_format)
        with _side(make_ours, device) as ours, _side(make_theirs, device) as theirs:
            ours_s, theirs_s = time_pairs(ours, theirs, pairs=pairs, device=device)
        bar = _bar(device, precision, memory_format)
        comparisons.append(Comparison("train", setting, peer, ours_s, theirs_s, bar=bar))
    make_best = partial(peer_step, images, targets, net.num_classes, precision, torch.channels_last)
    memory = _peak_of_a_step(make_ours, device), _peak_of_a_step(make_best, device)
    if memory[0] is not None and memory[1] is not None:
        comparisons.append(
            Comparison(
                part="train",
                setting=f"peak memory of a step: {setting}",
                peer=BEST_PEER,
                ours=(memory[0],),
                theirs=(memory[1],),
                unit="MiB",
                bar=1.0,
                at_most=True,
                note="tensors beyond weights and momentum, at the peak",
            )
        )
    if device.type == "cuda" and precision == "bfloat16":
        comparisons.append(
            Comparison(
                part="train",
                setting=f"use of the matrix units: {setting}",
                peer="bfloat16 matrix product of 8192 x 8192",
                ours=tuple(batch_size * FLOP_A_PICTURE / seconds for seconds in comparisons[0].ours),
                theirs=tuple(matrix_flops(device) for _ in range(pairs)),
                unit="FLOP/s",
                bar=0.45,
            )
        )
    return comparisons


@contextmanager
def _side(make: Callable[[], Step], device: torch.device) -> Iterator[Step]:
    if device.type == "cpu":
        with Side(make) as side:
            yield side
    else:
        yield make()


def _bar(device: torch.device, precision: Precision, memory_format: torch.memory_format) -> float | None:
    """Give what was promised: on a processor against the peer as people use it, on a GPU in bfloat16 at its best."""
    if device.type == "cpu":
        return 1.15 if memory_format is torch.contiguous_format else None
    return 2.0 if precision == "bfloat16" else None


def _peak_of_a_step(make: Callable[[], Step], device: torch.device) -> float | None:
    step = make()
    step()  # makes the momentum
    return peak_memory_mib(step, device)


def our_step(net: SSD, images: Tensor, targets: list[Target], precision: Precision, compile_mode: str | None) -> Step:
    """Make a training step as a run with the default settings does it.

    Args:
        net: the network.
        images: uint8 `[B, 3, H, W]`, where the network is to be trained.
        targets: B targets on the host.
        precision: of the network.
        compile_mode: see `training.compilation`.
    """
    device = images.device
    if device.type == "cpu":
        keep_freed_memory()
    net = net.to(device).to(memory_format=torch.channels_last).train()
    compile_network(net, compile_mode)
    loss, optimizer = MultiBoxLoss().train(), make_sgd(net.parameters(), fused=True)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            losses = loss(net(images), targets)
        (losses["loc"] + losses["cls"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def peer_step(
    images: Tensor, targets: list[Target], num_classes: int, precision: Precision, memory_format: torch.memory_format
) -> Step:
    """Make a training step as torchvision's reference does it.

    Args:
        images: uint8 `[B, 3, 300, 300]`.
        targets: B targets; torchvision has them on the device.
        num_classes: C, without the background.
        precision: of the network.
        memory_format: of the network's weights.
    """
    device = images.device
    net: nn.Module = torchvision_ssd300_vgg16(weights=None, weights_backbone=None, num_classes=num_classes + 1)
    net = net.to(device).to(memory_format=memory_format).train()
    optimizer = make_sgd([parameter for parameter in net.parameters() if parameter.requires_grad])
    pictures = list(images.float() / 255)
    wanted = [
        {"boxes": (target["boxes"] * IMAGE_SIZE).to(device), "labels": target["labels"].to(device)}
        for target in targets
    ]

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            losses = net(pictures, wanted)
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def matrix_flops(device: torch.device, size: int = 8192) -> float:
    """Measure how many operations a second a product of bfloat16 matrices reaches on a device."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds_of(lambda: a @ b, device)
    repeats = 10
    return repeats * 2 * size**3 / seconds_of(lambda: [a @ b for _ in range(repeats)], device)
