"""Reads safetensors files with a detector's weights and description. They contain no code."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ssd_lightning.errors import WeightsError

DETECTOR_KEY = "detector"
"""Metadata entry with the JSON of `detector_spec`."""


def read_detector_file(path: Path, *, prefix: str) -> dict[str, Any]:
    """Read a file into the form of a checkpoint.

    Args:
        path: the file.
        prefix: prefix of the weights' names in a checkpoint.

    Returns:
        `state_dict`, and `detector` if the file has a description.

    Raises:
        WeightsError: the file is missing or damaged, or its description is not JSON.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {f"{prefix}{name}": file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        content = {DETECTOR_KEY: json.loads(metadata[DETECTOR_KEY])} if DETECTOR_KEY in metadata else {}
    except Exception as error:  # SafetensorError, and errors from reading and JSON
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise WeightsError(f"{path} is damaged or not a safetensors file: {reason}") from error
    return {**content, "state_dict": weights}
