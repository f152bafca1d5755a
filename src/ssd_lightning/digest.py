"""A short hash of a configuration. Two runs have the same hash exactly if they would compute the same."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

WITHOUT_EFFECT = frozenset(
    {
        "resume",  # where a run continues, not what it computes
        "logger",
        "dirpath",  # of checkpoints
        "num_workers",  # every sample has its own seed, in any worker
        "prefetch_factor",
        "cache",  # returns the same images
        "cache_folder",
        "checksum",
        "enable_progress_bar",
        "enable_model_summary",
        "profiler",
        "report",
    }
)
"""Keys, at any depth, that do not affect the weights."""


def config_digest(config: Mapping[str, Any]) -> str:
    """Hash a resolved configuration without the keys that do not affect the weights.

    Args:
        config: plain containers with resolved interpolations.

    Returns:
        16 hexadecimal digits, the same in every process and on every machine.
    """
    text = json.dumps(_with_effect(config), sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def differences(first: Mapping[str, Any], second: Mapping[str, Any], *, between: str = "->") -> list[str]:
    """List `key: value -> value` for the differences that affect the weights.

    A setting is often used in several places. Among keys with the same change, only the shortest is listed.
    """
    one, two = (dict(_leaves(_with_effect(config))) for config in (first, second))
    changed: dict[str, str] = {}
    for key in sorted(one.keys() | two.keys(), key=lambda key: (key.count("."), key)):
        if key not in one or key not in two or one[key] != two[key]:
            change = f"{one.get(key, 'nothing')} {between} {two.get(key, 'nothing')}"
            name = key.rpartition(".")[2]
            changed.setdefault(f"{name}: {change}", f"{key}: {change}")
    return sorted(changed.values())


def _with_effect(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _with_effect(item) for key, item in value.items() if key not in WITHOUT_EFFECT}
    if isinstance(value, (list, tuple)):
        return [_with_effect(item) for item in value]
    return value


def _leaves(value: Any, prefix: str = "") -> Any:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}{key}.")
    else:
        yield prefix.rstrip("."), value
