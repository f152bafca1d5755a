"""A short name for a configuration: the same for two runs exactly if they would compute the same."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

WITHOUT_EFFECT = frozenset(
    {
        "resume",  # where a run goes on, not what it is
        "logger",
        "dirpath",  # of checkpoints
        "num_workers",  # every sample has a seed of its own, whoever draws it
        "prefetch_factor",
        "cache",  # gives the same images
        "cache_folder",
        "checksum",
        "enable_progress_bar",
        "enable_model_summary",
        "profiler",
        "report",
    }
)
"""Keys, at any depth, that change nothing in the weights."""


def config_digest(config: Mapping[str, Any]) -> str:
    """Hash a resolved configuration without the keys that have no effect on the weights.

    Args:
        config: plain containers, interpolations resolved.

    Returns:
        16 hexadecimal digits, the same in every process and on every machine.
    """
    text = json.dumps(_with_effect(config), sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def differences(first: Mapping[str, Any], second: Mapping[str, Any], *, between: str = "->") -> list[str]:
    """List `key: value -> value` where two configurations differ in what has an effect.

    One setting is often used in several places; of those that changed in the same way only the shortest key is listed.
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
