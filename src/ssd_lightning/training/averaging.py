"""An exponential moving average of the weights."""

from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel


class ForeachAverage(AveragedModel):
    """A moving average that one kernel updates, without a look at the device.

    torch's own asks a counter on the device whether this is the first update, and waits for the answer at every step.
    This one begins with the weights that it is made with, so that it has nothing to ask.

    Args:
        model: what is averaged; a copy is made.
        device: where the average lies.
        decay: share of the old average in the new one.
        warmup: see `MovingAverage`.
    """

    def __init__(self, model: nn.Module, *, device: torch.device, decay: float, warmup: bool = False) -> None:
        super().__init__(model, device=device, use_buffers=True)
        self.decay = decay
        self.warmup = warmup
        self._updates = 0  # `n_averaged`, without asking the device

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards a model's weights; counters are copied."""
        averaged = list(chain(self.module.parameters(), self.module.buffers()))
        current = list(chain(model.parameters(), model.buffers()))
        pairs = list(zip(averaged, current, strict=True))
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        decay = min(self.decay, (1 + self._updates) / (10 + self._updates)) if self.warmup else self.decay
        torch._foreach_lerp_([old for old, _ in real], [new for _, new in real], 1 - decay)
        for old, new in pairs:
            if not old.is_floating_point():
                old.copy_(new)
        self.n_averaged += 1
        self._updates += 1

    def load_state_dict(self, *arguments: Any, **settings: Any) -> Any:
        """Go on with the number of updates too."""
        loaded = super().load_state_dict(*arguments, **settings)
        self._updates = int(self.n_averaged)
        return loaded


class MovingAverage(WeightAveraging):
    """Validates and saves an exponential moving average of the weights.

    Lightning's own copies the weights before they are on the GPU, and so averages on the processor.

    Args:
        decay: share of the old average in the new one, at every optimiser step.
        warmup: the share is at most (1 + n) / (10 + n) after n steps, so that the average of a short run forgets the
            weights that training began with (TensorFlow's `num_updates`).
    """

    def __init__(self, decay: float = 0.999, *, warmup: bool = True) -> None:
        super().__init__()
        self.decay = decay
        self.warmup = warmup
        self._is_swapped = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin with the weights that training begins with."""
        if stage == "fit":
            device: Any = trainer.strategy.root_device
            self._average_model = ForeachAverage(pl_module, device=device, decay=self.decay, warmup=self.warmup)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save both, also in a validation, where the average stands in for the weights."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._is_swapped:
            averaged = checkpoint["current_model_state"]
            checkpoint["current_model_state"], checkpoint["state_dict"] = checkpoint["state_dict"], averaged

    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._is_swapped = not self._is_swapped
