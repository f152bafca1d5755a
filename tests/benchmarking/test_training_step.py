import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

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
    peers_on,
    torchvision_ssd300,
    training_flops,
)

CPU = torch.device("cpu")


def test_both_sides_train_the_network_of_the_paper() -> None:
    """26,285,486 weights (ssd.pytorch's SSD300 of 20 classes); torchvision has the same layers."""
    with torch.device("meta"):
        ours = make_network("backbone=vgg16")
        theirs = torchvision_ssd300(20)

    counts = [sum(p.numel() for p in net.parameters() if p.requires_grad) for net in (ours, theirs)]
    assert counts == [26_285_486, 26_285_486]
    assert len(ours.priors_cxcywh) == 8732


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_is_compared_in_time_and_memory(precision: str) -> None:
    as_it_comes, best, memory, loss = compare_training(
        net=make_network("backbone=vgg16"), pairs=1, device=CPU, batch_size=1, precision=precision
    )  # type: ignore[call-arg]
    assert [row.peer for row in (as_it_comes, best)] == ["torchvision SSD", "torchvision SSD, channels_last"]
    assert 0 < loss.ratio < 0.5
    assert (as_it_comes.bar, best.bar) == (1.15, None)
    assert (memory.unit, memory.bar, memory.at_most) == ("MiB", 1.0, True)
    assert memory.ours[0] > 50  # conv1_1 and conv1_2 of one image are 44 MiB in float32
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


def test_operations_of_a_network_are_counted() -> None:
    """31.4 G multiplications and additions forward (the paper's network), twice as many backward less the image's."""
    net = make_network("backbone=vgg16")
    assert training_flops(net) == pytest.approx(3 * 2 * 31.4e9, rel=0.01)
    assert net.priors_cxcywh.device == CPU


def test_the_loss_is_a_part_of_the_step() -> None:
    targets, images = random_targets(2, 20, (1, 3)), torch.zeros(2, 3, 128, 128, dtype=torch.uint8)
    step = OurStep(make_network("backbone=tiny", "image_size=[128,128]"), images, targets, "float32", None)
    of_loss, whole = loss_seconds(step, CPU)
    assert 0 < of_loss < whole


def test_peers_have_their_best_setting_last() -> None:
    gpu = torch.device("cuda")
    assert [peer.name for peer in peers_on(gpu, "reduce-overhead")] == [
        "torchvision SSD",
        "torchvision SSD, channels_last, fused SGD, compile=default",
    ]
    assert peers_on(gpu)[-1].name == "torchvision SSD, channels_last, fused SGD"


def test_on_a_gpu_both_sides_are_in_this_process_and_the_units_are_measured() -> None:
    """The way that a GPU goes, gone by a processor."""
    with torch.compiler.set_stance("force_eager"):
        speed, memory, loss, units = compare_training(
            net=make_network("backbone=tiny", "image_size=[96,96]"),
            pairs=2,
            device=CPU,
            batch_size=2,
            precision="bfloat16",
            compile_mode="default",
            peers=[Peer(build=small_peer, channels_last=True, fused=True, compile_mode="default")],
            apart=False,
            matrix_size=64,
        )
    assert (speed.unit, memory.unit, units.unit) == ("images/s", "MiB", "FLOP/s")
    assert len(speed.ours) == len(loss.ours) == len(units.theirs) == 2
    assert speed.peer == "torchvision SSD, channels_last, fused SGD, compile=default"
    assert "compile=default" in speed.setting
    assert units.ours[0] / speed.ours[0] == pytest.approx(units.ours[1] / speed.ours[1])


def small_peer(num_classes: int) -> torch.nn.Module:
    return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=num_classes + 1)
