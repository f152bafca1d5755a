"""An exponential moving average of the weights."""

from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ssd_lightning.checks import require_number
from ssd_lightning.training._compat import set_average


class ForeachAverage(AveragedModel):
    """A moving average that is updated by one kernel, without reading from the device.

    torch's `AveragedModel` reads a counter on the device at every step to detect the first update, and waits for it.
    This class counts on the host, and starts from a copy of the model. For `decay` and `warmup` see `MovingAverage`.
    """

    n_averaged: torch.Tensor

    def __init__(self, model: nn.Module, *, device: torch.device, decay: float, warmup: bool = False) -> None:
        super().__init__(model, device=device, use_buffers=True)
        self.decay = decay
        self.warmup = warmup
        self.n_averaged = torch.tensor(0, device="cpu")

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards a model's weights. Integer buffers are copied."""
        averaged = list(chain(self.module.parameters(), self.module.buffers()))
        current = list(chain(model.parameters(), model.buffers()))
        pairs = list(zip(averaged, current, strict=True))
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        updates = int(self.n_averaged)
        decay = min(self.decay, (1 + updates) / (10 + updates)) if self.warmup else self.decay
        torch._foreach_lerp_([old for old, _ in real], [new for _, new in real], 1 - decay)
        for old, new in pairs:
            if not old.is_floating_point():
                old.copy_(new)
        self.n_averaged += 1


class MovingAverage(WeightAveraging):
    """Validates and saves an exponential moving average of the weights.

    Lightning's own callback copies the weights before they are on the GPU, and so averages on the CPU.

    Args:
        decay: share of the old average in the new one, at every optimiser step.
        warmup: limit the share to (1 + n) / (10 + n) after n steps (TensorFlow's `num_updates`). The average of a
            short run then forgets the initial weights.

    Raises:
        ConfigurationError: `decay` is not in [0, 1].
    """

    def __init__(self, decay: float = 0.999, *, warmup: bool = True) -> None:
        super().__init__()
        require_number("callbacks.ema.decay", decay, 0, 1)
        self.decay = decay
        self.warmup = warmup
        self._is_swapped = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start the average from the initial weights."""
        if stage == "fit":
            device: Any = trainer.strategy.root_device
            set_average(self, ForeachAverage(pl_module, device=device, decay=self.decay, warmup=self.warmup))

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Save weights and average. During a validation they are swapped, which is undone in the checkpoint."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._is_swapped:
            averaged = checkpoint["current_model_state"]
            checkpoint["current_model_state"], checkpoint["state_dict"] = checkpoint["state_dict"], averaged

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Restore weights and average to go on training. A test after the training scores the average alone.

        Lightning has loaded the average by now, and also calls this in a test, where it would load the weights.
        """
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average. Outside of training, the module has it already."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)
            self._is_swapped = True

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train the weights again."""
        if self._is_swapped:
            super().on_validation_epoch_end(trainer, pl_module)
            self._is_swapped = False
