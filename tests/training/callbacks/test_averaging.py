import copy
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from helpers.small_training import Linear, quiet_trainer
from ssd_lightning.training.callbacks.averaging import ForeachAverage, MovingAverage


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("warmup", [False, True])
def test_one_kernel_gives_what_a_loop_gives(warmup: bool) -> None:
    net, most = network(), 0.3
    average, expected = ForeachAverage(net, device=torch.device("cpu"), decay=most, warmup=warmup), state(net)
    for decay in (1 / 10, 2 / 11, 3 / 12, most, most) if warmup else [most] * 5:
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


class Save(pl.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def fit(epochs: int, resume: Path | None = None, *, warmup: bool = False) -> pl.Trainer:
    trainer = quiet_trainer(max_epochs=epochs, callbacks=[MovingAverage(decay=0.5, warmup=warmup)])
    trainer.fit(Linear(), DataLoader(torch.arange(12.0).view(6, 2), batch_size=2), ckpt_path=resume)
    return trainer


def test_the_average_begins_with_the_first_weights() -> None:
    model, weights = Linear(), []
    expected = copy.deepcopy(model.layer.weight.detach())
    optimizer = model.configure_optimizers()
    for batch in torch.arange(12.0).view(3, 2, 2):
        optimizer.zero_grad()
        model.training_step(batch, 0).backward()
        optimizer.step()
        weights.append(model.layer.weight.detach().clone())
        expected = 0.5 * expected + 0.5 * weights[-1]
    trained = fit(1).lightning_module
    torch.testing.assert_close(trained.layer.weight.detach(), expected)  # which is what is left at the end


@pytest.mark.parametrize("warmup", [False, True])
def test_an_average_goes_on_where_it_stopped(tmp_path: Path, warmup: bool) -> None:
    straight = fit(2, warmup=warmup).lightning_module.layer.weight
    # At its end a run leaves the average in place of the weights, so that what goes on is saved before.
    stop = tmp_path / "first.ckpt"
    first = Linear()

    trainer = quiet_trainer(max_epochs=2, callbacks=[MovingAverage(decay=0.5, warmup=warmup), Save(stop)])
    trainer.fit(first, DataLoader(torch.arange(12.0).view(6, 2), batch_size=2))
    saved = torch.load(stop, weights_only=True)
    assert not torch.equal(saved["state_dict"]["layer.weight"], saved["current_model_state"]["layer.weight"])
    assert torch.equal(fit(2, resume=stop, warmup=warmup).lightning_module.layer.weight, straight)


@pytest.mark.parametrize("stage", ["test", "validate"])
def test_what_is_scored_after_the_training_is_the_average(tmp_path: Path, stage: str) -> None:
    class Scored(Linear):
        def test_step(self, batch: torch.Tensor, batch_index: int) -> None:
            self.scored = self.layer.weight.detach().clone()

        validation_step = test_step

    kept, model = tmp_path / "kept.ckpt", Scored()
    batches = DataLoader(torch.arange(12.0).view(6, 2), batch_size=2)
    trainer = quiet_trainer(max_epochs=2, callbacks=[MovingAverage(decay=0.5), Save(kept)])
    trainer.fit(model, batches)
    getattr(trainer, stage)(model, batches, ckpt_path=kept, verbose=False)
    saved = torch.load(kept, weights_only=True)
    assert not torch.equal(saved["state_dict"]["layer.weight"], saved["current_model_state"]["layer.weight"])
    assert torch.equal(model.scored, saved["state_dict"]["layer.weight"])


def test_the_average_lies_where_the_network_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """At set-up Lightning has not moved the weights yet."""
    callback = MovingAverage()
    monkeypatch.setattr(pl.strategies.SingleDeviceStrategy, "root_device", property(lambda self: torch.device("meta")))
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    callback.setup(trainer, Linear(), "fit")
    assert next(callback._average_model.module.parameters()).device.type == "meta"
