import copy
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from helpers.small_training import Linear, quiet_trainer
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.training.callbacks.averaging import ForeachAverage, MovingAverage


def test_one_kernel_gives_what_a_loop_gives() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    average = ForeachAverage(net, device=torch.device("cpu"), decay=0.3, warmup=True)
    expected = copy.deepcopy(net.state_dict())
    for decay in (1 / 10, 2 / 11, 3 / 12, 0.3, 0.3):
        net(torch.randn(2, 3, 8, 8)).sum().backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter += torch.randn_like(parameter)
        average.update_parameters(net)
        for name, value in net.state_dict().items():
            is_counter = not value.is_floating_point()
            expected[name] = value.clone() if is_counter else decay * expected[name] + (1 - decay) * value
    assert average.n_averaged == 5
    assert expected["1.num_batches_tracked"] == 5
    torch.testing.assert_close(dict(average.module.state_dict()), expected)


class Scored(Linear):
    """Notes the weights that are scored."""

    def test_step(self, batch: torch.Tensor, batch_index: int) -> None:
        self.scored = self.layer.weight.detach().clone()

    validation_step = test_step


class Save(pl.Callback):
    """Saves the first epoch. At its end a run leaves the average in place of the weights."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


BATCHES = torch.arange(12.0).view(3, 2, 2)


def fit(epochs: int, *callbacks: pl.Callback) -> tuple[pl.Trainer, Scored]:
    trainer = quiet_trainer(max_epochs=epochs, callbacks=[MovingAverage(decay=0.5, warmup=False), *callbacks])
    trainer.fit(model := Scored(), DataLoader(BATCHES, batch_size=None))
    return trainer, model


def test_the_average_begins_with_the_first_weights() -> None:
    model = Linear()
    expected = copy.deepcopy(model.layer.weight.detach())
    optimizer = model.configure_optimizers()
    for batch in BATCHES:
        optimizer.zero_grad()
        model.training_step(batch, 0).backward()
        optimizer.step()
        expected = 0.5 * expected + 0.5 * model.layer.weight.detach()
    torch.testing.assert_close(fit(1)[1].layer.weight.detach(), expected)  # which is what is left at the end


@pytest.mark.parametrize("stage", ["test", "validate"])
def test_what_is_scored_after_the_training_is_the_average(tmp_path: Path, stage: str) -> None:
    kept = tmp_path / "kept.ckpt"
    trainer, model = fit(2, Save(kept))
    getattr(trainer, stage)(model, DataLoader(BATCHES, batch_size=None), ckpt_path=kept, verbose=False)
    saved = torch.load(kept, weights_only=True)
    assert not torch.equal(saved["state_dict"]["layer.weight"], saved["current_model_state"]["layer.weight"])
    assert torch.equal(model.scored, saved["state_dict"]["layer.weight"])


def test_the_average_lies_where_the_network_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """At set-up Lightning has not moved the weights yet."""
    callback = MovingAverage()
    monkeypatch.setattr(pl.strategies.SingleDeviceStrategy, "root_device", property(lambda self: torch.device("meta")))
    callback.setup(quiet_trainer(), Linear(), "fit")
    assert next(callback._average_model.module.parameters()).device.type == "meta"


@pytest.mark.parametrize("decay", [-0.1, 1.5])
def test_a_decay_that_cannot_average_is_refused(decay: float) -> None:
    with pytest.raises(
        ConfigurationError, match=f"callbacks.ema.decay is {decay}; it must be a number of at least 0 and"
    ):
        MovingAverage(decay)
