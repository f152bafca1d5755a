"""A run that several files compare theirs with."""

from pathlib import Path

import pytest

from helpers.interrupted import fit
from ssd_lightning.training.callbacks.evaluations import Evaluations


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small run that went to its end; nobody writes into it."""
    run = tmp_path_factory.mktemp("whole") / "run"
    fit(run, callbacks=(Evaluations(),), default_root_dir=run)
    return run
