from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.training.schedules import LONGEST_WARMUP, cosine, multistep


def rates(schedule: LambdaLR, steps: int) -> list[float]:
    values = []
    for _ in range(steps):
        values.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return values


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


both_schedules = pytest.mark.parametrize("schedule", [cosine, multistep])


def test_the_papers_schedule() -> None:
    """1e-3 for 80k steps, 1e-4 until 100k, 1e-5 until 120k (SSD paper, section 3.1, and the Caffe solver)."""
    steps = (0, 79_999, 80_000, 99_999, 100_000, 119_999)
    for milestones in ((2 / 3, 5 / 6), (0.6666667, 0.8333333)):  # as a configuration writes them
        (factor,) = multistep(optimizer(), total_steps=120_000, milestones=milestones).lr_lambdas
        assert [factor(step) for step in steps] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_falls_from_one_to_the_final_factor() -> None:
    values = rates(cosine(optimizer(), total_steps=100, final_factor=0.1, warmup_steps=0), 101)
    assert values[0] == 1
    assert values[50] == pytest.approx(0.55)
    assert values[100] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in pairwise(values))


def test_warm_up_is_linear_and_continuous() -> None:
    values = rates(multistep(optimizer(), total_steps=12, warmup_steps=4, warmup_start=0.2), 6)
    assert values == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    joint = rates(cosine(optimizer(), total_steps=50, warmup_steps=10, warmup_start=0), 12)[9:]
    assert joint == pytest.approx([0.9, 1, 1], abs=0.01)


@both_schedules
def test_a_warm_up_may_be_a_share_of_the_run(schedule: Callable[..., LambdaLR]) -> None:
    steps = rates(schedule(optimizer(), total_steps=40, warmup_steps=10), 40)
    assert rates(schedule(optimizer(), total_steps=40, warmup_share=0.25, warmup_steps=7), 40) == pytest.approx(steps)


@both_schedules
def test_a_schedule_follows_whatever_tells_its_progress(schedule: Callable[..., LambdaLR]) -> None:
    counted = rates(schedule(optimizer(), total_steps=40, warmup_share=0.1), 40)
    told = schedule(optimizer(), progress=lambda step: min(1.0, step / 20), warmup_share=0.1)  # twice as fast
    assert rates(told, 20) == pytest.approx(counted[::2])


def test_a_warm_up_in_steps_is_bounded_where_the_steps_are_unknown() -> None:
    """500 steps would be all of a short run."""
    few = rates(multistep(optimizer(), progress=lambda step: step / 50, warmup_steps=500, warmup_start=0.0), 9)
    assert few == pytest.approx([step / 50 / LONGEST_WARMUP for step in range(5)] + [1] * 4)
    many = rates(multistep(optimizer(), progress=lambda step: step / 5000, warmup_steps=4, warmup_start=0.0), 6)
    assert many == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize("milestone", [80_000, 0.0, 1.0])
def test_milestones_are_shares(milestone: float) -> None:
    with pytest.raises(ConfigurationError, match=r"scheduler\.milestones"):
        multistep(optimizer(), total_steps=10, milestones=(milestone,))


@pytest.mark.parametrize(
    ("schedule", "setting", "value"),
    [
        *((cosine, "warmup_steps", -1), (multistep, "warmup_share", 1.5)),
        *((cosine, "final_factor", "abc"), (cosine, "warmup_start", "abc"), (multistep, "gamma", "abc")),
    ],
)
def test_a_bad_setting_is_refused_before_the_run(schedule: Callable[..., object], setting: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"scheduler\.{setting} is {value!r}; it must be a (whole )?number"):
        schedule(optimizer(), total_steps=10, **{setting: value})
