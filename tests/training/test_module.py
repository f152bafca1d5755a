import csv
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn

from helpers.small_network import small_net
from helpers.small_training import loader, quiet_trainer, small_module, target
from ssd_lightning.data.resize import Letterbox
from ssd_lightning.errors import ConfigurationError, UserError
from ssd_lightning.losses import CrossEntropy, HardNegativeCrossEntropy, MultiBoxLoss, SmoothL1Loss
from ssd_lightning.metrics.prior_errors import prior_errors
from ssd_lightning.models.backbones import TinyBackbone
from ssd_lightning.models.config import ConfigMixin
from ssd_lightning.models.extras import TinyExtras
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.models.ssd import SSD
from ssd_lightning.ops.normalization import IMAGENET
from ssd_lightning.ops.prior_levels import levels_from_scales
from ssd_lightning.training import module as module_file
from ssd_lightning.training.batch_scaling import scale_learning_rate
from ssd_lightning.training.fault_tolerance.non_finite import FiniteSteps
from ssd_lightning.training.optim import parameter_groups
from ssd_lightning.training.schedules import multistep
from ssd_lightning.types import Detections, Placement, SSDOutput

SGD, BOX = torch.optim.SGD, [0.1, 0.1, 0.6, 0.6]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_biases_learn_twice_as_fast_and_do_not_decay(batch_size: int) -> None:
    scaling = partial(scale_learning_rate, reference=1, batch_size=batch_size)
    model = small_module(scheduler=partial(multistep, warmup_steps=2), batch_scaling=scaling)
    fit = quiet_trainer(max_steps=1)
    fit.fit(model, loader([target(BOX)] * 2))
    weights, biases = fit.optimizers[0].param_groups
    assert biases["initial_lr"] == 2 * weights["initial_lr"] == pytest.approx(0.02 * batch_size)
    assert (weights["weight_decay"], biases["weight_decay"]) == (5e-4, 0.0)


@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_every_trainable_parameter_is_in_one_group_with_its_rate(factor: float) -> None:
    net = small_net()
    net.head.box[0].weight.requires_grad_(False)
    groups = parameter_groups(net, bias_lr_factor=2.0, backbone_lr_factor=factor)
    found = {id(p): (group.lr_factor, group.are_biases) for group in groups for p in group.parameters}
    assert len(found) == sum(len(group.parameters) for group in groups)
    assert len(groups) == (2 if factor == 1 else 4)
    expected = {}
    for name, p in net.named_parameters():
        if p.requires_grad:
            of_backbone, is_bias = ".backbone." in name, name.endswith("bias")
            expected[id(p)] = (2.0 if is_bias else 1.0) * (factor if of_backbone else 1.0), is_bias
    assert found == expected


class Learned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, class_logits: Tensor, labels: Tensor) -> Tensor:
        return self.factor * CrossEntropy()(class_logits, labels)


def test_parameters_of_the_loss_are_trained_too() -> None:
    loss = MultiBoxLoss(class_loss=Learned())
    quiet_trainer(max_steps=2).fit(small_module(loss=loss), loader([target(BOX)]))
    assert loss.class_loss.factor != 1


def test_the_schedule_counts_steps_not_epochs() -> None:
    model, fit = small_module(scheduler=partial(multistep, warmup_steps=2)), quiet_trainer(max_steps=3)
    fit.fit(model, loader([target(BOX)] * 4))
    # 3 steps: after them the warm-up of 2 is over and both milestones, at step 2 of 3, have passed
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * 0.1 * 0.1)


def test_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"trainer\.max_epochs"):
        quiet_trainer(max_steps=-1, max_epochs=-1).fit(small_module(), loader([target()]))


def test_images_without_objects_train_with_a_finite_loss() -> None:
    model = small_module(loss=MultiBoxLoss(class_loss=HardNegativeCrossEntropy(min_negatives=3)))
    quiet_trainer(max_steps=4, callbacks=[FiniteSteps()]).fit(model, loader([target(), target()]))
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_frozen_layers_stay_to_the_last_bit_through_a_fit() -> None:
    model = small_module()
    model.net.freeze_backbone(stages="all")
    backbone = model.net.extractor.backbone
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    assert any(name.endswith("running_mean") for name in before)
    data = loader([target(BOX), target([0.3, 0.2, 0.9, 0.8], name="b")])
    quiet_trainer(max_epochs=3, max_steps=-1).fit(model, data, data)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_a_diverged_loss_stops_the_run_and_names_the_images() -> None:
    model = small_module(optimizer=partial(SGD, lr=1e30))
    data = loader([target(BOX, name="p"), target([0.3, 0.2, 0.9, 0.8], name="q")])
    fit = quiet_trainer(max_steps=50, callbacks=[FiniteSteps()], log_every_n_steps=1)
    with pytest.raises(UserError, match=r"loss is (nan|inf).*images p, q"):
        fit.fit(model, data)


def test_classes_and_network_have_to_agree() -> None:
    with pytest.raises(ConfigurationError, match="2 classes, the data have 3: a, b, c"):
        small_module(class_names=("a", "b", "c"))


class Unconfigured(nn.Module):
    out_channels, normalization = (8,), IMAGENET

    def __init__(self) -> None:
        super().__init__()
        self.layers = TinyBackbone(channels=[4, 8])

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.layers(images)
        return maps


class Stranger(ConfigMixin, Unconfigured):
    """It is defined outside of the package."""


def test_a_network_that_no_checkpoint_can_hold_is_refused_before_the_first_step(tmp_path: Path, caplog) -> None:
    saving = {"enable_checkpointing": True, "default_root_dir": tmp_path, "max_steps": 1}
    levels = levels_from_scales(scales=[(0.2, 0.3)] * 3, aspect_ratios=[(2,)] * 3, image_size=32)
    parts = {"extras": partial(TinyExtras, channels=[8]), "levels": levels, "image_size": 32, "num_classes": 2}
    with pytest.raises(ConfigurationError, match="could not rebuild this network: Unconfigured has no plain form"):
        quiet_trainer(**saving).fit(small_module(net=SSD(backbone=Unconfigured(), **parts)), loader([target(BOX)]))
    quiet_trainer(**saving).fit(small_module(net=SSD(backbone=Stranger(), **parts)), loader([target(BOX)]))
    assert "Stranger is not a class of ssd_lightning.models" in caplog.text
    assert "Detector.load cannot read the checkpoints of this run" in caplog.text


def test_validation_logs_the_scores_of_known_detections() -> None:
    model = small_module()
    data = loader([target(BOX), target(name="b")], batch_size=1)
    scores = quiet_trainer().validate(model, data, verbose=False)[0]
    names = {"map", "map_50", "map_11point", "map_area", "loss_box", "loss_cls", "class_error", "box_mae"}
    assert {f"val/{name}" for name in names} <= scores.keys()
    assert 0 <= scores["val/map_11point"] <= 1
    assert scores["val/ap_11point/cat"] == scores["val/map_11point"]  # dog has no objects: not in the mean


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": partial(SGD, lr=-1, momentum=0.9)}, r"optimizer\(lr=-1, momentum=0\.9\): Invalid learning rate"),
        ({"optimizer": partial(SGD, momentun=0.9)}, r"optimizer\(momentun=0\.9\): .*unexpected keyword .*'momentun'"),
        ({"optimizer": partial(SGD, foreach=True, fused=True)}, r"optimizer\(.*\): `fused` and `foreach` cannot"),
        ({"scheduler": partial(multistep, gamma="abc")}, r"scheduler\.gamma is 'abc'; it must be"),  # says it itself
        ({"scheduler": partial(multistep, steps=3)}, r"scheduler\(steps=3\): .*unexpected keyword"),
        ({"scheduler": lambda optimizer, total_steps: float("x")}, r"scheduler\(\): could not convert"),
    ],
)
def test_what_torch_rejects_is_reported_with_its_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{message}") as caught:
        quiet_trainer(max_steps=1).fit(small_module(**settings), loader([target()]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("accumulate", "written", "last"), [(1, [2, 5, 8, 11], [6, 13]), (2, [2, 5], [3, 7])])
def test_training_compares_every_prior_only_where_the_numbers_are_written(
    accumulate: int, written: list[int], last: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs of 7 batches: every third step is written, and the last batch of an epoch stays in sight."""
    compared = []
    fit = quiet_trainer(
        max_steps=-1, max_epochs=2, log_every_n_steps=3, accumulate_grad_batches=accumulate,
        logger=CSVLogger(tmp_path), default_root_dir=tmp_path,
    )  # fmt: skip

    def counted(*arguments: object) -> dict[str, torch.Tensor]:
        compared.append(fit.global_step)
        return prior_errors(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module_file, "prior_errors", counted)
    fit.fit(small_module(), loader([target(BOX)] * 14))
    with next(tmp_path.rglob("metrics.csv")).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["loss"]]
    assert [int(row["step"]) for row in rows] == written
    assert all(row["train/box_mae"] and row["train/class_error"] for row in rows)
    assert compared == sorted(written + last)


def test_errors_of_the_priors_are_logged_from_the_same_matching() -> None:
    variances = (1.0, 0.5)
    loss = MultiBoxLoss(box_loss=SmoothL1Loss(variances=variances))
    model = small_module(loss=loss, postprocess=PostProcess(variances=variances))
    data = loader([target(BOX), target([0.2, 0.3, 0.9, 0.9], [0.0, 0.0, 0.4, 0.4], name="b")])
    matchings = []
    match = model.loss.matcher
    model.loss.matcher = lambda *args: matchings.append(match(*args)) or matchings[-1]  # type: ignore[method-assign, assignment]
    scores = quiet_trainer().validate(model, data, verbose=False)[0]
    expected = prior_errors(model.eval().net(next(iter(data))[0]), matchings[0], variances)
    assert [scores[f"val/{name}"] for name in expected] == pytest.approx([value.item() for value in expected.values()])
    model.train()
    fit = quiet_trainer(max_steps=1)
    fit.fit(model, data)
    assert len(matchings) == 2
    assert {"train/class_error", "train/box_mae"} <= fit.logged_metrics.keys()
    total = fit.logged_metrics["train/loss_box"] + fit.logged_metrics["train/loss_cls"]
    assert fit.logged_metrics["loss"] == pytest.approx(total.item())


def test_letterboxed_images_are_scored_relative_to_the_originals() -> None:
    targets = [{**target([0.0, 0.1, 0.5, 0.4], name=name), "placement": Placement(1.0, 0.5)} for name in "ab"]
    perfect = [{"boxes": t["boxes"], "labels": t["labels"], "scores": torch.ones(1)} for t in targets]
    seen = []

    class Perfect(PostProcess):
        def __call__(self, output: SSDOutput) -> list[Detections]:
            return perfect

    class Look(pl.Callback):
        def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen.append(pl_module.metrics["val"]["voc"].evaluation())

    model, fit = small_module(resize=Letterbox(), postprocess=Perfect()), quiet_trainer(callbacks=[Look()])
    (scores,) = fit.validate(model, loader(targets), verbose=False)
    assert scores["val/map_area"] == scores["val/map"] == 1
    for table in (seen[0].objects, seen[0].detections):
        torch.testing.assert_close(table.boxes, torch.tensor([[0.0, 0.2, 0.5, 0.8]] * 2))
    checkpoint: dict[str, Any] = {}
    model.on_save_checkpoint(checkpoint)
    assert checkpoint["detector"]["resize"] == {"kind": "letterbox", "fill": [123, 117, 104]}
