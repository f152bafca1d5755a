"""Saves and restores the states of the global random number generators."""

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import distributed as dist


def random_state() -> dict[str, Any]:
    """Return the states of all global random number generators of this process, in plain containers and tensors."""
    _, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    state: dict[str, Any] = {
        "python": list(random.getstate()[1]),
        "python_gauss": random.getstate()[2],
        "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
        "numpy_rest": [int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restore the states that `random_state` returned."""
    random.setstate((3, tuple(state["python"]), state["python_gauss"]))
    position, has_gauss, gauss = state["numpy_rest"]
    keys = state["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class RNGState(pl.Callback):
    """Saves the random states of every rank in the checkpoint, and restores them when the run is resumed."""

    def __init__(self) -> None:
        self._of_ranks: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Collect the states of all ranks. All ranks create the checkpoint, so all of them call this."""
        states = [random_state()]
        if dist.is_available() and dist.is_initialized():
            states = [{} for _ in range(dist.get_world_size())]
            dist.all_gather_object(states, random_state())
        return {"of_ranks": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts."""
        self._of_ranks = state_dict["of_ranks"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore this rank's states. Random numbers drawn during the setup have no effect."""
        if self._of_ranks and trainer.global_rank < len(self._of_ranks):
            set_random_state(self._of_ranks[trainer.global_rank])
        self._of_ranks = []
