"""A training step never makes the host wait for the device: asked of torch on a GPU, and of tensors without data here.

On the meta device an operation that needs a value on the host (`item`, `cpu`, `nonzero`, a boolean mask as an index)
cannot be carried out and raises. What it cannot see are copies to the device from pageable memory of the host, which
wait too; nor does it run Lightning, callbacks and fused optimisers. The test on a GPU covers these.
"""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers.small_network import small_net
from helpers.small_training import small_module
from helpers.targets import make_target
from ssd_lightning.assembly import make_net
from ssd_lightning.config import compose_config
from ssd_lightning.losses import (
    ArgmaxMatcher,
    CrossEntropy,
    FocalLoss,
    HardNegativeCrossEntropy,
    IoULoss,
    MultiBoxLoss,
    SmoothL1Loss,
)
from ssd_lightning.metrics.prior_errors import prior_errors
from ssd_lightning.training import SSDModule
from ssd_lightning.training.batch_scaling import split_optimizer
from ssd_lightning.training.callbacks.averaging import ForeachAverage
from ssd_lightning.training.callbacks.logged_steps import is_logged
from ssd_lightning.types import SSDOutput, Target

SIZE = 64
NO_DATA = torch.device("meta")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

LOSSES = [
    *({"box_loss": loss} for loss in (SmoothL1Loss(), SmoothL1Loss(0), *map(IoULoss, ("giou", "ciou")))),
    *({"class_loss": loss} for loss in (CrossEntropy(), FocalLoss())),
    {"class_loss": HardNegativeCrossEntropy(min_negatives=2, mining_score="foreground")},
    *({"normalizer": name} for name in ("positives_per_image", "batch_size", "priors")),
    {"matcher": ArgmaxMatcher()},
]
each_loss = pytest.mark.parametrize("settings", LOSSES, ids=lambda settings: "-".join(map(str, settings.values())))


def no_images(count: int, size: int = SIZE) -> torch.Tensor:
    return torch.zeros(count, 3, size, size, dtype=torch.uint8, device=NO_DATA)


@pytest.fixture(scope="module")
def without_data() -> SSDOutput:
    """Of a network whose way back the images without objects below go."""
    output = small_net(SIZE).to(NO_DATA)(no_images(4))
    of_network = {name: getattr(output, name).detach().requires_grad_() for name in ("box_offsets", "class_logits")}
    return output._replace(**of_network)


def gradients_of(value: torch.Tensor) -> set[str]:
    """Name the steps of the way back from a value to what it was computed from."""
    seen, ahead = set(), [value.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [following for following, _ in node.next_functions]
    return {node.name() for node in seen}


@each_loss
def test_the_loss_never_asks_for_a_value(without_data: SSDOutput, settings: dict[str, object]) -> None:
    loss = MultiBoxLoss(**settings)  # type: ignore[arg-type]
    assignment = loss.match(without_data, [target(index) for index in range(4)])
    losses = loss.compare(without_data, assignment)
    prior_errors(without_data, assignment)
    total = losses["loss_box"] + losses["loss_cls"]
    torch.autograd.grad(total, without_data[:2], retain_graph=True)
    # The gradient of `prod` counts zeros on the host, where tensors without data do not show it.
    names = gradients_of(total)
    assert "AddBackward0" in names
    assert not {name for name in names if name.startswith("Prod")}


def test_images_without_objects_never_ask_either() -> None:
    net, loss = small_net(SIZE).to(NO_DATA), MultiBoxLoss()
    sum(loss(net(no_images(2)), [target(0), target(0)]).values()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_network_of_the_paper_never_asks_for_a_value() -> None:
    with NO_DATA:
        net = make_net(compose_config("train"), 20, pretrained=False)
    output = net(no_images(1, 300))
    assert output.class_logits.shape == (1, 8732, 21)
    (output.class_logits.sum() + output.box_offsets.sum()).backward()


@pytest.fixture(scope="module")
def on_fake_gpu() -> tuple[FakeTensorMode, SSDOutput]:
    images = torch.zeros(4, 3, SIZE, SIZE, dtype=torch.uint8)
    with FakeTensorMode() as fake, torch.device("cuda"):
        return fake, small_net(SIZE)(fake.from_tensor(images).to("cuda"))


@each_loss
def test_nothing_is_left_on_the_host(
    on_fake_gpu: tuple[FakeTensorMode, SSDOutput], settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors that only claim to lie on a GPU: an operation that mixes them with others of the host is refused."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # they have no memory
    (fake, output), targets = on_fake_gpu, [target(index) for index in range(4)]
    with fake, torch.device("cuda"):
        loss = MultiBoxLoss(**settings)  # type: ignore[arg-type]
        for one in targets:
            one |= {"boxes": fake.from_tensor(one["boxes"]), "labels": fake.from_tensor(one["labels"])}
        assignment = loss.matcher(targets, output.priors_cxcywh)
        values = loss.compare(output, assignment) | prior_errors(output, assignment)
    assert {value.device.type for value in values.values()} == {"cuda"}


@pytest.mark.parametrize("optimizer", [partial(torch.optim.SGD, momentum=0.9), torch.optim.AdamW])
def test_optimiser_clipping_and_average_never_ask_for_a_value(
    optimizer: Callable[..., torch.optim.Optimizer],
) -> None:
    net = small_net(SIZE).to(NO_DATA)
    average, step = ForeachAverage(net, device=NO_DATA, decay=0.9), optimizer(net.parameters(), lr=0.1)
    for _ in range(2):
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        step.step()
        average.update_parameters(net)


def target(index: int) -> Target:
    count = index % 3  # images without objects too
    corner = torch.rand(count, 2) * 0.5
    return make_target(torch.cat((corner, corner + 0.3), dim=1), image_id=str(index), size_px=SIZE)


def module(loss: MultiBoxLoss | None = None) -> SSDModule:
    """Make a small network with the optimiser of the defaults."""
    optimizer = instantiate(split_optimizer(compose_config("train").optimizer, 4)[0], _convert_="all")
    return small_module(net=small_net(SIZE), loss=loss, optimizer=optimizer)


def test_targets_stay_on_the_host() -> None:
    images = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
    sent, targets = module().transfer_batch_to_device((images, [target(0), target(1)]), NO_DATA, 0)
    assert sent.device.type == "meta"
    assert {tensor["boxes"].device.type for tensor in targets} == {"cpu"}


def test_a_step_logs_nothing_of_the_device() -> None:
    """Lightning reads what stands in the progress bar at every batch, also what was logged at an earlier one."""
    model, logged = module().to(NO_DATA), []
    model.log = lambda name, value, **settings: logged.append((name, value))  # type: ignore[method-assign, assignment]
    model.trainer = SimpleNamespace(  # type: ignore[assignment]
        num_training_batches=9, accumulate_grad_batches=1, global_step=1, log_every_n_steps=5
    )
    model.training_step((no_images(2), [target(1), target(2)]), 1)
    assert logged == []


class Strict(pl.Callback):
    """Forbids waiting from the beginning of the second epoch to the end of training; the last callback of a run.

    At the first batch of a run the progress bar reads what it shows, and libraries choose their kernels.
    """

    def __init__(self) -> None:
        self.forbidden_batches: list[tuple[int, int]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch > 0:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if torch.cuda.get_sync_debug_mode() == ERROR:
            self.forbidden_batches.append((trainer.current_epoch, batch_idx))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.cuda.set_sync_debug_mode("default")


ERROR = 2  # as `torch.cuda.get_sync_debug_mode` gives it


def default_callbacks() -> list[pl.Callback]:
    """Make the callbacks of the defaults and the moving average; checkpoints are skipped, since files wait."""
    config = compose_config("train", ["callbacks=[default,ema]"]).callbacks
    return [instantiate(config[name], _convert_="all") for name in config if name not in ("best", "last")]


def fit_seven_of_eight(model: SSDModule, watch: pl.Callback, **settings: object) -> pl.Trainer:
    """Train for an epoch of 4 batches and 3 batches more, so that none of these is one that is looked at."""
    images = torch.randint(0, 256, (4, 3, SIZE, SIZE), dtype=torch.uint8)
    batch = (images, [target(index) for index in range(4)])
    loader = torch.utils.data.DataLoader([batch] * 4, batch_size=None, pin_memory=torch.cuda.is_available())
    trainer = pl.Trainer(
        devices=1, max_steps=7, log_every_n_steps=100, logger=False, enable_checkpointing=False,
        enable_model_summary=False, gradient_clip_val=1.0, callbacks=[*default_callbacks(), watch], **settings,  # type: ignore[arg-type]
    )  # fmt: skip
    trainer.fit(model, loader)
    return trainer


class Reader(pl.Callback):
    """Remembers batches whose numbers the callbacks may read."""

    def __init__(self) -> None:
        self.looked_at: list[tuple[int, int]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if is_logged(trainer, batch_idx):
            self.looked_at.append((trainer.current_epoch, batch_idx))


def test_the_run_that_is_asked_on_a_gpu_is_one_of_the_defaults() -> None:
    """The same run on the processor: all callbacks, the fused optimiser, and nothing to read in the second epoch."""
    reader = Reader()
    trainer = fit_seven_of_eight(module(), reader, accelerator="cpu")
    assert reader.looked_at == [(0, 3)]
    assert trainer.global_step == 7
    assert trainer.optimizers[0].defaults["fused"]
    assert {"Speed", "ProgressBar", "FiniteSteps", "MovingAverage"} <= {type(c).__name__ for c in trainer.callbacks}  # type: ignore[attr-defined]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@each_loss
def test_a_training_step_on_a_gpu_never_waits(precision: str, settings: dict[str, object]) -> None:
    strict = Strict()
    model = module(MultiBoxLoss(**settings))  # type: ignore[arg-type]
    try:
        fit_seven_of_eight(model, strict, accelerator="gpu", precision=precision)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert strict.forbidden_batches == [(1, 0), (1, 1), (1, 2)]
