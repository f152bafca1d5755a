from functools import partial

import pytest
import torch
from omegaconf import OmegaConf

from ssd_lightning.config import compose_config
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.training.batch_scaling import scale_learning_rate, split_optimizer
from ssd_lightning.training.schedules import cosine, multistep


def rates(make_scheduler: object, *, batch_size: int, total_steps: int = 90, lr: float = 0.1) -> list[float]:
    """The learning rate of every step, with a rate that is meant for 16 images a step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    make_scheduler = scale_learning_rate(optimizer, make_scheduler, reference=16, batch_size=batch_size)  # type: ignore[arg-type]
    scheduler = make_scheduler(optimizer, total_steps=total_steps)
    values = []
    for _ in range(total_steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def test_the_papers_rule() -> None:
    """0.1 x kn / 256, from 0.1 up over 5 of 90 epochs (Goyal et al. 2017, sections 2.1, 2.2 and 5.1)."""
    values = rates(partial(multistep, milestones=(0.5,)), batch_size=64)
    assert values[0] == pytest.approx(0.1)
    assert values[1] == pytest.approx(0.1 + 0.3 / 5)
    assert values[5:45] == pytest.approx([0.4] * 40)
    assert values[45:] == pytest.approx([0.04] * 45)


@pytest.mark.parametrize(("schedule", "batch_size", "factor"), [(multistep, 8, 0.5), (cosine, 48, 3.0)])
def test_the_rate_grows_with_the_batch(schedule: object, batch_size: int, factor: float) -> None:
    plain = rates(partial(schedule, warmup_steps=5), batch_size=16)  # type: ignore[call-overload]
    scaled = rates(partial(schedule, warmup_steps=5), batch_size=batch_size)  # type: ignore[call-overload]
    assert scaled == pytest.approx([factor * value for value in plain])


def test_a_smaller_rate_needs_no_warm_up() -> None:
    assert rates(multistep, batch_size=8)[0] == pytest.approx(0.05)


def test_own_settings_reach_no_constructor() -> None:
    given = OmegaConf.to_container(compose_config("train").optimizer, resolve=True)
    settings, own = split_optimizer(given, 32)  # type: ignore[arg-type]
    rules = {"bias_lr_factor": 2.0, "decay_biases": False, "backbone_lr_factor": 1.0}
    assert own == {"batch_scaling": None, **rules}  # scaling is off by default
    assert settings.keys() | {"scale_with_batch"} | rules.keys() == given.keys()  # type: ignore[union-attr]
    scaling = split_optimizer({**settings, "scale_with_batch": 32}, 8)[1]["batch_scaling"]
    assert scaling.keywords == {"reference": 32, "batch_size": 8}


def test_a_bad_reference_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"optimizer\.scale_with_batch is 0; it must be .*at least 1"):
        split_optimizer({"lr": 0.1, "scale_with_batch": 0}, 32)
