from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.training.schedules import cosine, cosine_factor, multistep, multistep_factor, warmup_factor


def rates(schedule: torch.optim.lr_scheduler.LambdaLR, steps: int) -> list[float]:
    values = []
    for _ in range(steps):
        values.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return values


def optimizer(lr: float = 1.0) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def test_the_papers_schedule() -> None:
    """1e-3 for 80k steps, 1e-4 until 100k, 1e-5 until 120k (SSD paper, section 3.1, and the Caffe solver)."""
    factor = {
        step: multistep_factor(
            step, total_steps=120_000, milestones=(2 / 3, 5 / 6), gamma=0.1, warmup_steps=0, warmup_start=0.1
        )
        for step in (0, 79_999, 80_000, 99_999, 100_000, 119_999)
    }
    assert list(factor.values()) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_multistep_over_a_short_run() -> None:
    schedule = multistep(optimizer(), total_steps=6, milestones=(0.5,), gamma=0.1)
    assert rates(schedule, 6) == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1])


def test_cosine_falls_from_one_to_the_final_factor() -> None:
    values = rates(cosine(optimizer(), total_steps=100, final_factor=0.1, warmup_steps=0), 101)
    assert values[0] == 1
    assert values[50] == pytest.approx(0.55)
    assert values[100] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in pairwise(values))


def test_warm_up_is_linear_and_continuous() -> None:
    values = [warmup_factor(step, warmup_steps=4, warmup_start=0.2) for step in range(6)]
    assert values == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    joint = [cosine_factor(s, total_steps=50, final_factor=0, warmup_steps=10, warmup_start=0) for s in (9, 10, 11)]
    assert joint == pytest.approx([0.9, 1, 1], abs=0.01)


def test_groups_keep_their_proportions() -> None:
    weight, bias = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    both = torch.optim.SGD([{"params": [weight]}, {"params": [bias], "lr": 0.2}], lr=0.1)
    schedule = cosine(both, total_steps=10, warmup_steps=3)
    for _ in range(10):
        slow, fast = schedule.get_last_lr()
        assert fast == pytest.approx(2 * slow)
        both.step()
        schedule.step()


def test_the_state_is_plain(tmp_path) -> None:
    schedule = multistep(optimizer(), total_steps=10)
    torch.save(schedule.state_dict(), tmp_path / "state.pt")
    schedule.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))


@pytest.mark.parametrize("milestones", [(80_000,), (0.0,), (1.0,)])
def test_milestones_are_shares(milestones: tuple[float, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"scheduler\.milestones"):
        multistep(optimizer(), total_steps=10, milestones=milestones)


def test_a_negative_warm_up() -> None:
    with pytest.raises(ConfigurationError, match="warmup_steps is -1"):
        cosine(optimizer(), total_steps=10, warmup_steps=-1)


@pytest.mark.parametrize(
    ("schedule", "setting"),
    [(cosine, "final_factor"), (cosine, "warmup_start"), (multistep, "gamma"), (multistep, "warmup_start")],
)
def test_what_is_no_number_is_refused_before_the_run(schedule: Callable[..., object], setting: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"scheduler\.{setting} is 'abc'; it must be a number"):
        schedule(optimizer(), total_steps=10, **{setting: "abc"})
