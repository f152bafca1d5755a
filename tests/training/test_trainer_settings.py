from types import SimpleNamespace
from typing import Any

import pytest

from ssd_lightning.training.trainer_settings import warn_of_unvalidated_epochs


@pytest.mark.parametrize(
    ("epochs", "every", "told"),
    [
        (12, 4, ""), (10, 4, "nothing is validated after epoch 8"), (2, 4, "nothing is validated"),
        (-1, 4, ""), (None, 1, ""), (7, None, ""),
    ],
)  # fmt: skip
def test_epochs_after_the_last_validation_are_a_warning(
    caplog: pytest.LogCaptureFixture, epochs: int | None, every: int | None, told: str
) -> None:
    trainer: Any = SimpleNamespace(max_epochs=epochs, check_val_every_n_epoch=every)
    warn_of_unvalidated_epochs(trainer)
    assert caplog.text.strip().endswith(told)
    assert bool(caplog.text) == bool(told)
