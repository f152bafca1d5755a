"""The LightningModule: trains a network with a loss, an optimiser and a learning-rate schedule."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision, Precision
from pytorch_lightning.utilities import GradClipAlgorithmType
from torch import Tensor, nn
from torch.optim import Optimizer

from ssd_lightning.checks import require_number
from ssd_lightning.data.annotation_checks import as_class_names
from ssd_lightning.data.resize import (
    ResizeMode,
    Stretch,
    as_resize_mode,
    placements_of,
    plain_mode,
    undo_detections,
    undo_targets,
)
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.checkpoints import detector_spec
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.metrics.coco import COCOMeanAveragePrecision
from ssd_lightning.metrics.prior_errors import prior_errors
from ssd_lightning.metrics.voc import VOCMeanAveragePrecision
from ssd_lightning.models.config import check_rebuildable
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.models.ssd import SSD
from ssd_lightning.training.batch_scaling import MakeScheduler
from ssd_lightning.training.budget import TrainingBudget
from ssd_lightning.training.callbacks.logged_steps import is_logged
from ssd_lightning.training.fault_tolerance.non_finite import spread_non_finite
from ssd_lightning.training.optim import ParameterGroup, call_factory, parameter_groups
from ssd_lightning.types import Target

log = logging.getLogger(__name__)

Batch = tuple[Tensor, list[Target]]

COCO_SCORES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")


class SSDModule(pl.LightningModule):
    """Trains and evaluates an SSD.

    `optimizer` and `scheduler` are factories, because the module creates the two objects only when the training starts:
    the optimiser needs the parameter groups, and the schedule needs the optimiser and the length of the run. In the
    YAML files, `_partial_: true` makes these factories.

    Args:
        net: the network.
        loss: compares the network's output with the targets. If it has parameters, they are trained like weights.
        optimizer: factory of the optimiser, such as `partial(torch.optim.SGD, lr=1e-3)`. It is called with a list of
            parameter groups, and returns the optimiser.
        scheduler: factory of the learning-rate schedule, such as those of `training.schedules`. It is called with the
            optimiser and `total_steps=`, or with the optimiser and `progress=` if there is a budget, and returns the
            schedule. The schedule is stepped at every optimiser step.
        class_names: names of the classes 1..C.
        postprocess: turns the network's output into detections.
        bias_lr_factor: learning rate of biases relative to weights. The Caffe reference uses 2.
        backbone_lr_factor: learning rate of the backbone relative to the other layers. A backbone with ImageNet weights
            and frozen batch norms needs a much smaller rate than new layers.
        decay_biases: whether weight decay applies to biases. In the Caffe reference it does not.
        batch_scaling: scales the learning rate with the batch size, such as a `partial` of `scale_learning_rate`. None
            does not change the rate.
        budget: length of the run as a time. None uses the steps or epochs of the trainer.
        resize: how the data resize images to the network's input: a `ResizeMode` or its name. It is stored in
            checkpoints.
        data_settings: settings for splits and classes of the data, in plain containers. They are stored in checkpoints.

    Raises:
        ConfigurationError: the number of class names differs from the network's number of classes, or the loss and the
            post-processing have different variances.
    """

    def __init__(
        self,
        *,
        net: SSD,
        loss: MultiBoxLoss,
        optimizer: Callable[[Any], Optimizer],
        scheduler: MakeScheduler,
        class_names: Sequence[str],
        postprocess: PostProcess = PostProcess(),  # noqa: B008  immutable
        bias_lr_factor: float = 2.0,
        backbone_lr_factor: float = 1.0,
        decay_biases: bool = False,
        batch_scaling: Callable[[Optimizer, MakeScheduler], MakeScheduler] | None = None,
        budget: TrainingBudget | None = None,
        resize: ResizeMode | str = Stretch(),  # noqa: B008  immutable
        data_settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.class_names = as_class_names(class_names)
        if len(class_names) != net.num_classes:
            raise ConfigurationError(
                f"the network has {net.num_classes} classes, the data have {len(class_names)}: {', '.join(class_names)}"
            )
        encoded_with = tuple(getattr(loss.box_loss, "variances", postprocess.variances))
        if encoded_with != postprocess.variances:
            raise ConfigurationError(
                f"loss.box_loss.variances is {encoded_with} and postprocess.variances is {postprocess.variances}; "
                "boxes must be decoded as they were encoded"
            )
        self.net = net
        self.loss = loss
        self.postprocess = postprocess
        require_number("optimizer.bias_lr_factor", bias_lr_factor, 0)
        require_number("optimizer.backbone_lr_factor", backbone_lr_factor, 0)
        self.bias_lr_factor = bias_lr_factor
        self.backbone_lr_factor = backbone_lr_factor
        self.decay_biases = decay_biases
        self.batch_scaling = batch_scaling
        self.budget = budget
        self.resize = as_resize_mode(resize)
        self.data_settings = data_settings
        self._make_optimizer = optimizer
        self._make_scheduler = scheduler
        self.metrics = nn.ModuleDict()
        for stage in ("val", "test"):  # both may be in use at the same time
            metrics = {"voc": VOCMeanAveragePrecision(net.num_classes), "coco": COCOMeanAveragePrecision()}
            self.metrics[stage] = nn.ModuleDict(metrics)

    def score_names(self, stage: str) -> list[str]:
        """List the names under which the scores of `val` or `test` are logged."""
        names = [*COCO_SCORES, "map_11point", "map_area", *(f"ap_11point/{name}" for name in self.class_names)]
        return [f"{stage}/{name}" for name in names]

    def on_fit_start(self) -> None:
        """Say before the first step whether the checkpoints of this run can be written, and read by `Detector.load`.

        Raises:
            ConfigurationError: the network or the resize mode has no plain form, so that no checkpoint can be written.
        """
        if not self.trainer.checkpoint_callbacks:
            return
        plain_mode(self.resize)
        try:
            check_rebuildable(self.net)
        except ConfigurationError as error:
            if isinstance(error.__cause__, TypeError):
                raise
            log.warning(
                "%s: Detector.load cannot read the checkpoints of this run, only their weights can be used", error
            )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Send the images without waiting. Targets stay on the host: the matcher stacks them and then sends them."""
        images, targets = batch
        return images.to(device, non_blocking=True), targets

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of one batch."""
        images, targets = batch
        output = self.net(images)
        assignment = self.loss.match(output, targets)
        losses = self.loss.compare(output, assignment)
        total = spread_non_finite(losses["loss_box"] + losses["loss_cls"])
        if is_logged(self.trainer, batch_index, before_step=True):
            errors = prior_errors(output, assignment, self.postprocess.variances)
            values = {f"train/{name}": value for name, value in {**losses, **errors}.items()}
            self._log_step({"loss": total, **values}, batch_size=len(images))
        return total

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Evaluate one validation batch."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Evaluate one test batch."""
        self._evaluate(batch, "test")

    def on_validation_epoch_end(self) -> None:
        """Log mAP over the whole split."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log mAP over the whole split."""
        self._log_metrics("test")

    def configure_optimizers(self) -> Any:
        """Create optimiser and schedule. Biases form their own parameter group.

        Raises:
            ConfigurationError: the optimiser or schedule rejects its settings, or the run has no length.
        """
        groups = parameter_groups(
            self.net, bias_lr_factor=self.bias_lr_factor, backbone_lr_factor=self.backbone_lr_factor
        )
        of_loss = [parameter for parameter in self.loss.parameters() if parameter.requires_grad]
        if of_loss:
            groups.append(ParameterGroup(of_loss, lr_factor=1.0, are_biases=False))
        optimizer = call_factory("optimizer", self._make_optimizer, [{"params": group.parameters} for group in groups])
        for settings, group in zip(optimizer.param_groups, groups, strict=True):
            settings["lr"] = settings["lr"] * group.lr_factor
            if group.are_biases and not self.decay_biases:
                settings["weight_decay"] = 0.0
        length = self._length()
        make_scheduler = self._make_scheduler
        if self.batch_scaling is not None:
            make_scheduler = self.batch_scaling(optimizer, make_scheduler)
        scheduler = call_factory("scheduler", make_scheduler, optimizer, **length)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _length(self) -> dict[str, Any]:
        if self.budget is not None:
            if "progress" not in inspect.signature(self._make_scheduler).parameters:
                raise ConfigurationError("budget= needs a schedule that can follow it: scheduler=cosine or multistep")
            return {"progress": self.budget.progress}
        total_steps = self.trainer.estimated_stepping_batches
        if total_steps in (float("inf"), -1):
            raise ConfigurationError(
                "the schedule needs the length of the run: set trainer.max_epochs, trainer.max_steps or budget"
            )
        return {"total_steps": int(total_steps)}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients as the trainer is configured, also with fused optimisers in bfloat16.

        Lightning rejects fused optimisers with clipping in every mixed precision. Only float16 needs this: its
        gradients are scaled, and a fused optimiser unscales them after the clipping. `check_precision` rejects float16.
        """
        plugin = self.trainer.precision_plugin
        if gradient_clip_val and isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or GradClipAlgorithmType.NORM)
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val, algorithm)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add all that `Detector.load` and `evaluate` need besides the weights."""
        checkpoint["detector"] = detector_spec(self.net, self.class_names, self.postprocess, self.resize)
        checkpoint["data"] = self.data_settings

    def _evaluate(self, batch: Batch, stage: str) -> None:
        images, targets = batch
        output = self.net(images)
        assignment = self.loss.match(output, targets)
        errors = prior_errors(output, assignment, self.postprocess.variances)
        values = self.loss.compare(output, assignment) | errors
        detections = undo_detections(self.postprocess(output), placements_of(targets))
        targets = undo_targets(targets)
        for metric in self.metrics[stage].values():  # type: ignore[operator]
            metric.update(detections, targets)
        # Ranks may see different numbers of batches, so their means are combined only at the end of the epoch.
        named = {f"{stage}/{name}": value for name, value in values.items()}
        self.log_dict(named, batch_size=len(images), on_epoch=True, sync_dist=True)

    def _log_step(self, values: Mapping[str, Tensor], *, batch_size: int) -> None:
        """Log values of the step, averaged over the ranks.

        They are copied to the CPU once. Lightning converts the values of the progress bar to numbers at every batch,
        and would otherwise wait for the device each time.
        """
        stacked = torch.stack([value.detach() for value in values.values()])
        means: Tensor = self.trainer.strategy.reduce(stacked, reduce_op="mean")
        logged = dict(zip(values, means.cpu().unbind(), strict=True))
        self.log("loss", logged.pop("loss"), prog_bar=True, batch_size=batch_size)
        self.log("lr", torch.tensor(self.optimizers().param_groups[0]["lr"]), prog_bar=True)  # type: ignore[union-attr]
        self.log_dict(logged, batch_size=batch_size)

    def _log_metrics(self, stage: str) -> None:
        voc, coco = (self.metrics[stage][name] for name in ("voc", "coco"))  # type: ignore[index]
        scores, summary = voc.compute(), coco.compute()
        values = [summary[name].float() for name in COCO_SCORES]
        values += [scores["map_11point"], scores["map_area"], *scores["ap_11point"]]
        for name, value in zip(self.score_names(stage), values, strict=True):
            self.log(name, value, prog_bar=name == f"{stage}/map_11point")
        for metric in (voc, coco):
            metric.reset()
