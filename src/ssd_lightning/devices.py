"""Choice of the device that a network runs on."""

import torch

from ssd_lightning.errors import ConfigurationError


def choose_device(device: str) -> torch.device:
    """Find the device of a setting. `auto` is the first GPU, or the CPU if there is none.

    Raises:
        ConfigurationError: this machine has no such device.
    """
    if device == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(kind)
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"device={device}: this machine has no such device ({reason})") from error
    return chosen
