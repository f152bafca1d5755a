"""What one rank computes, to be held against what a single process computes; imported by spawned processes."""

import signal
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from helpers.datasets import annotation
from helpers.small_network import small_net
from helpers.targets import draw_boxes, make_target
from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.errors import UserError
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.metrics import VOCMeanAveragePrecision
from ssd_lightning.training.fault_tolerance.rank_consistency import RankConsistencyCheck
from ssd_lightning.training.fault_tolerance.signals import Signals
from ssd_lightning.types import Detections, Target

NORMALIZERS = ("positives", "positives_per_image", "batch_size", "priors")
SIZE = 32
BATCH = 8
IMAGES = 33


def draw_target(generator: torch.Generator, index: int) -> Target:
    count = index % 4  # none at all for some
    boxes, labels = draw_boxes(count, generator, (0.15, 0.55)), torch.randint(1, 3, (count,), generator=generator)
    return make_target(boxes, labels, image_id=str(index), size_px=SIZE)


def draw_batches(count: int) -> list[tuple[Tensor, list[Target]]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator),
            [draw_target(generator, index) for index in range(BATCH)],
        )
        for _ in range(count)
    ]


def gradients(normalizer: str, accumulate: int, rank: int, world_size: int, device: torch.device) -> Tensor:
    """All gradients of one step in one vector; global batches are dealt out as the sampler deals them."""
    torch.manual_seed(0)
    net = small_net().to(device).train()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()  # its statistics are each rank's own
    loss = MultiBoxLoss(normalizer=normalizer).train()  # type: ignore[arg-type]
    if world_size > 1:
        ids = [device.index] if device.type == "cuda" else None
        wrapped: nn.Module = nn.parallel.DistributedDataParallel(net, device_ids=ids)
    else:
        wrapped = net
    batches = draw_batches(accumulate)
    for number, (images, targets) in enumerate(batches):
        waits = world_size > 1 and number + 1 < accumulate
        with wrapped.no_sync() if waits else nullcontext():  # type: ignore[operator]
            losses = loss(wrapped(images[rank::world_size].to(device)), targets[rank::world_size])
            ((losses["loss_box"] + losses["loss_cls"]) / accumulate).backward()
    return torch.cat([weight.grad.flatten() for weight in net.parameters() if weight.grad is not None]).cpu()


def scores(num_images: int, rank: int, world_size: int) -> tuple[dict[str, Tensor], list[Tensor], int]:
    """Give mAP of drawn detections, of which this rank sees its share, all of them, and the number of its own."""
    metric = VOCMeanAveragePrecision(2)
    twice = [0] if num_images > world_size else []
    for image in (*range(rank, num_images, world_size), *twice):  # none for a rank, unlike the sampler
        generator = torch.Generator().manual_seed(image)
        target = draw_target(generator, image + 1)
        noise = 0.02 * torch.randn(len(target["boxes"]), 4, generator=generator)
        boxes = torch.cat([target["boxes"] + noise, draw_boxes(2, generator, (0.15, 0.55))])
        labels = torch.cat([target["labels"], torch.tensor([1, 2])])
        scores = torch.rand(len(boxes), generator=generator).sort(descending=True).values
        metric.update([Detections(boxes=boxes, scores=scores, labels=labels)], [target])
    keys, everything = metric.seen_by_all()
    seen = [keys, everything.sizes_px, *everything.detections, *everything.objects]
    return metric.compute(), seen, len(metric.evaluation().sizes_px)


def annotations(*, count: int = 3, shift: float = 0.0, folder: str = "images") -> AnnotationTable:
    paths = [Path(folder, f"image{index}.jpg") for index in range(count)]
    return AnnotationTable.of([annotation(path, size_px=(20, 30), boxes=[[1, 2, 10, 12 + shift]]) for path in paths])


def disagreement(rank: int, world_size: int) -> str:
    """What the comparison says when rank 1 has another learning rate and another box."""
    dataset = SimpleNamespace(annotations=annotations(shift=0.5 * rank), class_names=["cat"])
    data = SimpleNamespace(dataset=lambda split: dataset)
    trainer = SimpleNamespace(world_size=world_size, datamodule=data)
    try:
        RankConsistencyCheck({"optimizer": {"lr": 0.001 * (rank + 1)}}).setup(trainer, None, "fit")  # type: ignore[arg-type]
    except UserError as error:
        return str(error)
    return ""


def heard(rank: int) -> list[tuple[int, bool]]:
    """What this rank is told where the others received signals, or want a checkpoint."""
    signals, told = Signals(), []
    signals._group = dist.new_group(backend="gloo")
    for received, due in (((0, 0), 1), ((signal.SIGUSR1, signal.SIGTERM), 0), ((signal.SIGINT, signal.SIGTERM), 0)):
        signals.received = received[rank]
        signals.ask(due=bool(due and rank))
        number, is_due = signals.answer()
        told.append((int(number), is_due))
    return [*told, (0, signals.all_say(rank == 0))]


def run_rank(rank: int, world_size: int, folder: Path, backend: str) -> None:
    torch.set_num_threads(1)
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend, f"file://{folder}/store", rank=rank, world_size=world_size, timeout=timedelta(seconds=60)
    )
    results = {
        "gradients": {
            (normalizer, accumulate): gradients(normalizer, accumulate, rank, world_size, device)
            for normalizer in NORMALIZERS
            for accumulate in (1, 2)
        },
        "disagreement": disagreement(rank, world_size),
        "heard": heard(rank),
    }
    if backend == "gloo":  # metrics lie on the processor here; the backend has to be its
        results["scores"] = {count: scores(count, rank, world_size) for count in (IMAGES, 1)}
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()
