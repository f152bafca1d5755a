import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torchvision.models.detection import ssd300_vgg16 as torchvision_ssd300_vgg16

from ssd_lightning.benchmark import make_network
from ssd_lightning.benchmarking import training
from ssd_lightning.benchmarking.loss import random_targets
from ssd_lightning.benchmarking.training import (
    OurStep,
    Peer,
    compare_training,
    loss_seconds,
    matrix_flops,
    peer_step,
    training_flops,
)

CPU = torch.device("cpu")


def test_both_sides_train_the_network_of_the_paper() -> None:
    """26,285,486 weights (ssd.pytorch's SSD300 of 20 classes); torchvision has the same layers."""
    with torch.device("meta"):
        ours = make_network("backbone=vgg16")
        theirs = torchvision_ssd300_vgg16(
            weights=None, weights_backbone=None, num_classes=21, trainable_backbone_layers=5
        )
    counts = [sum(p.numel() for p in net.parameters() if p.requires_grad) for net in (ours, theirs)]
    assert counts == [26_285_486, 26_285_486]
    assert len(ours.priors_cxcywh) == 8732


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_is_compared_in_time_and_memory(precision: str) -> None:
    as_it_comes, best, memory = compare_training(
        net=make_network("backbone=vgg16"), pairs=1, device=CPU, batch_size=1, precision=precision
    )  # type: ignore[call-arg]
    assert [row.peer for row in (as_it_comes, best)] == list(training.PEERS)
    assert (as_it_comes.bar, best.bar) == (1.15, None)
    assert (memory.unit, memory.bar, memory.at_most) == ("MiB", 1.0, True)
    assert memory.ours[0] > 50  # conv1_1 and conv1_2 of one picture are 44 MiB in float32
    assert precision in memory.setting


@pytest.mark.slow
@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_each_side_learns(side: str) -> None:
    images, targets = torch.randint(0, 256, (1, 3, 300, 300), dtype=torch.uint8), random_targets(1, 20, (2, 2))
    seen: list[torch.Tensor] = []
    hook = register_optimizer_step_post_hook(
        lambda optimizer, args, kwargs: seen.append(optimizer.param_groups[0]["params"][0].detach().clone())
    )
    try:
        if side == "ours":
            step = OurStep(make_network("backbone=vgg16"), images, targets, "float32", None)
        else:
            step = peer_step(images, targets, 20, "float32", Peer(channels_last=True))
        step(), step()
    finally:
        hook.remove()
    assert not torch.equal(*seen)


def test_operations_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "seconds_of", lambda work, device: 2.0)
    assert matrix_flops(CPU, size=4) == 10 * 2 * 4**3 / 2
