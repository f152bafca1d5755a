"""A training of a given length in time, under a clock that the test moves."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from helpers.clock import Clock
from helpers.interrupted import PowerCut, fit, module
from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.training.budget import VALIDATION_SHARE, TrainingBudget, parse_budget
from ssd_lightning.training.callbacks.budget import BudgetCallback
from ssd_lightning.training.fault_tolerance.resumption import check_work_is_left
from ssd_lightning.training.schedules import cosine


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10min", 600), (".5h", 1800)])
def test_a_length_of_time_is_read(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("value", ["10", 10, "1h30min", "-5s", "0min", ""])
def test_all_else_is_no_length_of_time(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"budget is .*; it must be a length of time such as 90s, 10min or"):
        parse_budget(value)


def begun(
    seconds: float, *, at: float = 0.0, validation_steps: float = 0, share: Any = list
) -> tuple[TrainingBudget, Clock]:
    """A budget whose first step begins when its clock shows `at`."""
    clock = Clock(at)
    budget = TrainingBudget(seconds, clock=clock)
    budget.begin(0, validation_steps=validation_steps, share=share)
    return budget, clock


def train(
    budget: TrainingBudget,
    clock: Clock,
    seconds_a_step: Callable[[int], float] = lambda step: 1.0,
    *,
    first: int = 0,
    most: int = 9999,
) -> list[float]:
    """Take steps until the time is over; give the progress before each of them."""
    progress, step = [budget.progress(first)], first
    while step < most:
        step += 1
        clock.now += seconds_a_step(step)
        progress.append(budget.progress(step))  # as the schedule asks: before the step's end is announced
        if budget.is_due(step):
            budget.read(step)
        if budget.is_over(step):
            break
    return progress


def test_progress_is_the_share_of_the_time_between_the_first_step_and_the_last_validation() -> None:
    budget, clock = begun(120.0, at=10.0, validation_steps=20)  # at half the cost of training, 10 steps of 1 s
    progress = train(budget, clock)
    assert clock.now == pytest.approx(110, abs=1)
    assert progress == pytest.approx([0, 0, *(step / 100 for step in range(2, len(progress)))], abs=0.011)
    assert progress[-1] == pytest.approx(1, abs=0.02)


def test_it_is_over_in_time_though_steps_change_their_pace_and_progress_never_falls() -> None:
    budget, clock = begun(100.0, at=5.0)
    pace = {1: 12.0}  # workers start in the first step
    progress = train(budget, clock, lambda step: pace.get(step, 0.2 if step % 100 < 50 else 0.6))
    assert clock.now == pytest.approx(100, abs=0.4)
    assert all(later >= earlier for earlier, later in pairwise(progress))
    assert progress[-1] == pytest.approx(1, abs=0.01)


def broadcast(numbers: list[list[float]], rank: int, values: Sequence[float]) -> list[float]:
    """Stand in for the collective call: rank 0 has left its numbers, which the others find in the same order."""
    if rank == 0:
        numbers.append(list(values))
    return numbers[-1] if rank == 0 else numbers.pop(0)


def test_all_ranks_have_the_progress_of_rank_0_and_end_at_the_same_step() -> None:
    """The other rank's own clock is another one, which must not count."""
    sent: list[list[float]] = []
    of_ranks = []
    for rank, (at, pace) in enumerate([(4.0, 0.05), (300.0, 0.07)]):
        share = partial(broadcast, sent, rank)
        budget, clock = begun(60.0, at=at, validation_steps=8, share=share)
        of_ranks.append(train(budget, clock, lambda step, pace=pace: pace))  # type: ignore[misc]
    assert of_ranks[0] == of_ranks[1]
    assert 1000 < len(of_ranks[0]) < 1200
    assert not sent  # both ranks asked equally often


@pytest.mark.parametrize(("pace", "steps_a_reading"), [(0.01, 10), (0.25, 4), (3.0, 1)])
def test_readings_are_fewer_where_steps_are_faster(pace: float, steps_a_reading: int) -> None:
    read: list[list[float]] = []
    train(*begun(1e6, share=partial(broadcast, read, 0)), lambda step: pace, most=1000)
    assert len(read) == pytest.approx(1000 / steps_a_reading, abs=3)


def test_validations_take_a_tenth_of_the_time_at_most() -> None:
    budget, clock = begun(1000.0, at=20.0, validation_steps=10)
    step = validations = 0

    def validate() -> None:
        budget.validation_begins()
        clock.now += 5.0
        budget.validation_ends(step)

    while not budget.is_over(step):
        step += 1
        clock.now += 1.0
        budget.read(step)
        if step % 10 == 0 and budget.may_validate(step):  # the end of an epoch
            validate()
            validations += 1
            assert budget.reading.validating <= VALIDATION_SHARE * clock.now
    assert 18 <= validations <= 20
    validate()
    assert clock.now == pytest.approx(1000, abs=1)


def test_a_validation_longer_than_the_budget_leaves_half_of_it_for_training() -> None:
    budget, clock = begun(100.0, at=20.0, validation_steps=5000)
    train(budget, clock)
    assert clock.now == pytest.approx(60, abs=1)


def test_a_larger_budget_goes_on_from_a_smaller_share() -> None:
    first, clock = begun(100.0)
    train(first, clock)
    first.is_spent = True
    larger, same = TrainingBudget(200.0, clock=Clock()), TrainingBudget(100.0, clock=Clock())
    for budget in (larger, same):
        budget.load_state_dict(first.state_dict())
        assert budget.progress(100) == pytest.approx(1 if budget is same else 0.5, abs=0.01)  # for the first step
        budget.begin(100, validation_steps=0)
    assert larger.progress(100) == pytest.approx(0.5, abs=0.01)
    assert not larger.is_spent
    assert same.is_spent


class Ticks(pl.Callback):
    """Lets a second pass in every step, and three in a validation."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rates: list[float] = []
        self.validations: list[int] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.clock.now += 1.0

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validations.append(trainer.global_step)
        self.clock.now += 3.0


def budgeted(run: Path, seconds: float, *, at: float = 5.0, **settings: Any) -> tuple[Ticks, BudgetCallback]:
    clock = Clock(at)
    ticks, callback = Ticks(clock), BudgetCallback(TrainingBudget(seconds, clock=clock))
    model = module(scheduler=partial(cosine, warmup_share=0.1, warmup_start=0.0), budget=callback.budget)
    fit(run, model=model, callbacks=(ticks, callback), **{"max_epochs": -1, **settings})
    return ticks, callback


def saved(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return state


def test_a_run_ends_with_its_budget_and_a_validation_in_mid_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Five steps an epoch; the budget decides when to validate, not the setting."""
    with caplog.at_level("INFO"):
        ticks, callback = budgeted(tmp_path / "run", 47.0, check_val_every_n_epoch=3)
    assert ticks.clock.now == pytest.approx(47, abs=1)
    *earlier, last = ticks.validations
    steps = len(ticks.rates)
    assert last == steps == saved(tmp_path / "run")["global_step"]
    assert steps % 5  # in mid-epoch
    assert earlier == [25]  # at 30 s, a tenth of which are the 2.75 s expected
    assert callback.budget.record == {
        "seconds": 47.0, "used_seconds": pytest.approx(47, abs=1),
        "steps": steps, "epochs": steps / 5, "images": 2 * steps,
    }  # fmt: skip
    assert saved(tmp_path / "run")["callbacks"]["BudgetCallback"]["is_spent"]
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()
    peak = max(ticks.rates)
    assert peak == pytest.approx(0.05, rel=0.05)
    assert ticks.rates.index(peak) == pytest.approx(0.1 * steps, abs=2)
    assert ticks.rates[-1] < 0.01 * peak
    (told,) = (record.message for record in caplog.records if "fit into the budget" in record.message)
    assert "budget of 47 s (1 s per step)" in told
    expected = int(told.split()[1])
    assert expected == pytest.approx(steps, rel=0.1)
    assert callback.expected_epochs == pytest.approx(expected / 5)


def test_max_steps_end_a_budgeted_run_with_a_validation(tmp_path: Path) -> None:
    ticks, callback = budgeted(tmp_path / "run", 1000.0, max_steps=7)
    assert ticks.validations == [callback.budget.expected_steps(5)] == [7]
    assert ticks.rates[-1] < 0.3 * max(ticks.rates)


def test_gathered_gradients_are_not_lost_at_the_end(tmp_path: Path) -> None:
    ticks, callback = budgeted(tmp_path / "run", 30.0, accumulate_grad_batches=2)
    assert ticks.clock.now == pytest.approx(30, abs=2)
    assert callback.budget.images == len(ticks.rates) == 2 * callback.budget.steps  # an image at a time
    place = saved(tmp_path / "run")["DetectionDataModule"]
    assert place["samples_seen"] % 2 == 0


def test_a_run_that_was_cut_off_uses_the_rest_of_its_budget_and_no_more(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(PowerCut):
        budgeted(run, 30.0, cut=("on_train_batch_end", 8), every_n_steps=1)
    used = saved(run)["callbacks"]["BudgetCallback"]["used_seconds"]
    last = run / "checkpoints" / "last.ckpt"
    ticks, callback = budgeted(run, 30.0, at=4.0, resume=last)
    assert used + ticks.clock.now == pytest.approx(30, abs=1)
    assert ticks.rates == sorted(ticks.rates, reverse=True)  # no second warm-up
    assert ticks.rates[-1] < 0.1 * ticks.rates[0]
    assert callback.budget.images == 2 * callback.budget.steps
    ticks, again = budgeted(run, 30.0, resume=last)
    assert (ticks.rates, ticks.validations, again.budget.steps) == ([], [], callback.budget.steps)
    with pytest.raises(WeightsError, match=r"has trained for \d+ s, and budget=30s leaves nothing; raise it"):
        check_work_is_left(last, max_epochs=-1, max_steps=-1, budget=30.0)
    check_work_is_left(last, max_epochs=-1, max_steps=-1, budget=60.0)


def test_a_start_that_takes_longer_than_the_budget_leaves_one_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ticks, _ = budgeted(tmp_path / "run", 20.0, at=25.0)
    assert (len(ticks.rates), ticks.validations) == (1, [1])
    assert "25 s of the budget of 20 s passed before the first step" in caplog.text


def test_a_schedule_that_counts_steps_is_refused(tmp_path: Path) -> None:
    by_steps = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1)
    with pytest.raises(ConfigurationError, match="budget= needs a schedule that can follow it"):
        fit(tmp_path / "run", model=module(scheduler=by_steps, budget=TrainingBudget(10.0, clock=Clock())))
