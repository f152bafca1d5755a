"""A training step of SSD300 on VGG16, compared with torchvision's, with the data on the device."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context

import torch
from results import Comparison
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16, ssdlite320_mobilenet_v3_large

from helpers.random_ssd import random_targets
from ssd_lightning.assembly import make_net
from ssd_lightning.config import compose_config
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.memory import keep_freed_memory, peak_memory_mib
from ssd_lightning.models.ssd import SSD
from ssd_lightning.timing import time_pairs
from ssd_lightning.training.compilation import compile_network
from ssd_lightning.types import Target

Step = Callable[[], object]
make_sgd = partial(torch.optim.SGD, lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=True)


def make_network(*overrides: str, num_classes: int = 20) -> SSD:
    """Build an untrained network as `train` would with these overrides."""
    torch.manual_seed(0)
    return make_net(compose_config("train", list(overrides)), num_classes, pretrained=False)


def torchvision_ssd300(num_classes: int) -> nn.Module:
    """Build torchvision's SSD300 without weights, for a number of classes plus the background."""
    return ssd300_vgg16(weights=None, weights_backbone=None, num_classes=num_classes + 1)


def torchvision_ssdlite320(num_classes: int) -> nn.Module:
    """Build torchvision's SSDLite320 without weights: a small peer, for a rehearsal."""
    return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=num_classes + 1)


def compare_training(
    *,
    net: SSD,
    peer: nn.Module,
    device: torch.device,
    batch_size: int,
    pairs: int = 3,
    precision: str = "float32",
    compile_mode: str | None = None,
    peer_compile_mode: str | None = None,
    apart: bool | None = None,
) -> list[Comparison]:
    """Compare forward, loss, backward and SGD step of one batch: speed and peak memory.

    Both sides have the same images, objects, precision, memory layout and optimiser.

    Args:
        net: our network, untrained.
        peer: torchvision's network.
        device: device of both trainings.
        batch_size: B.
        pairs: number of timings of each side.
        precision: precision of the network, `float32` or `bfloat16`; losses are always float32.
        compile_mode: for our network, see `training.compilation`.
        peer_compile_mode: for backbone and head of the peer; the rest of it works on lists of any length.
        apart: run each side in its own process; None: only on a CPU, where this project keeps freed memory
            (`memory`), which would help the peer too.
    """
    apart = device.type == "cpu" if apart is None else apart
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch_size, 3, *net.image_size), dtype=torch.uint8, generator=generator)
    images, targets = images.to(device), random_targets(batch_size, net.num_classes)
    make_ours = partial(our_step, net, images, targets, precision, compile_mode)
    make_theirs = partial(peer_step, peer, images, targets, precision, peer_compile_mode)
    with _side(make_ours, apart) as ours, _side(make_theirs, apart) as theirs:
        seconds = time_pairs(ours, theirs, pairs=pairs, device=device, warmup=1 if device.type == "cpu" else 3)
    setting = f"forward + loss + backward + SGD, batch {batch_size}, {precision}, {device.type}"
    setting += f", compile={compile_mode}" if compile_mode else ""
    name = "torchvision SSD" + (f", compile={peer_compile_mode}" if peer_compile_mode else "")
    rates = [tuple(batch_size / one for one in side) for side in seconds]
    comparisons = [Comparison("training", setting, name, rates[0], rates[1], "images/s")]
    steps = (make_ours(), make_theirs()) if apart else (ours, theirs)
    memory = [_peak_of_a_step(step, device) for step in steps]
    if None not in memory:
        ours_mib, theirs_mib = ((mib,) for mib in memory)
        comparisons.append(
            Comparison("training", f"peak memory of tensors: {setting}", name, ours_mib, theirs_mib, "MiB")
        )
    return comparisons


def _peak_of_a_step(step: Step, device: torch.device) -> float | None:
    step()  # creates the momentum
    return peak_memory_mib(step, device)


@contextmanager
def _side(make: Callable[[], Step], apart: bool) -> Iterator[Step]:
    if not apart:
        yield make()
        return
    context, setup = get_context("spawn"), (make, torch.get_num_threads())
    with ProcessPoolExecutor(1, mp_context=context, initializer=_set_up, initargs=setup) as process:
        yield lambda: process.submit(_work).result()


def _set_up(make: Callable[[], Step], num_threads: int) -> None:
    global _step
    torch.set_num_threads(num_threads)
    _step = make()


def _work() -> None:
    _step()


def our_step(net: SSD, images: Tensor, targets: list[Target], precision: str, compile_mode: str | None) -> Step:
    """Build a training step as in a run with the default settings.

    Args:
        net: the network.
        images: uint8 `[B, 3, H, W]`, on the training device.
        targets: B targets on the host.
        precision: precision of the network.
        compile_mode: see `training.compilation`.
    """
    keep_freed_memory(images.device)
    net = net.to(images.device, memory_format=torch.channels_last).train()
    compile_network(net, compile_mode)
    loss, optimizer = MultiBoxLoss().train(), make_sgd(net.parameters())

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            losses = loss(net(images), targets)
        (losses["loss_box"] + losses["loss_cls"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def peer_step(net: nn.Module, images: Tensor, targets: list[Target], precision: str, compile_mode: str | None) -> Step:
    """Build a training step as in torchvision's reference; the arguments are those of `our_step`."""
    device = images.device
    net = net.to(device, memory_format=torch.channels_last).train()
    if compile_mode is not None:
        for name in ("backbone", "head"):
            net.get_submodule(name).compile(mode=compile_mode)
    optimizer = make_sgd([parameter for parameter in net.parameters() if parameter.requires_grad])
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
