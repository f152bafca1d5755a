"""Reads what an offline run of Weights & Biases wrote: a log of protobuf records in blocks, as LevelDB has it."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024
FULL, LAST = 1, 4


def parts_of(content: bytes) -> Iterator[bytes]:
    """Give the records of a `.wandb` file; block borders may cut one into pieces."""
    assert content[:4] == b":W&B"
    place, pieces = 7, b""  # behind the name, a magic number and the version
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        place += 7 + length
        pieces += content[place - length : place]
        if kind in (FULL, LAST):
            yield pieces
            pieces = b""


def records_of(directory: Path) -> list[Any]:
    """Read the one run that was recorded below a directory."""
    from wandb.proto import wandb_internal_pb2

    (path,) = directory.glob("wandb/offline-run-*/run-*.wandb")
    records = []
    for part in parts_of(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(part)
        records.append(record)
    kinds = [record.WhichOneof("record_type") for record in records]
    assert "exit" in kinds, f"{path}: the run's end is missing; its last records are {kinds[-10:]}"
    return records


def history_of(records: list[Any]) -> list[dict[str, Any]]:
    """Give the rows that were logged."""
    return [nested(record.history.item) for record in records if record.HasField("history")]


def config_of(records: list[Any]) -> dict[str, Any]:
    """Give the configuration as it was at last."""
    items: list[Any] = []
    for record in records:
        items += record.run.config.update if record.HasField("run") else []
        items += record.config.update if record.HasField("config") else []
    return nested(items)


def nested(items: Any) -> dict[str, Any]:
    """Put values where their names, each of one word or more, say."""
    result: dict[str, Any] = {}
    for item in items:
        *folders, name = [item.key] if item.key else item.nested_key
        place = result
        for folder in folders:
            place = place.setdefault(folder, {})
        value = json.loads(item.value_json)
        if isinstance(value, dict) and isinstance(place.get(name), dict):
            value = place[name] | value  # W&B keeps what charts look like beside what it sends of itself
        place[name] = value
    return result


def files_of(directory: Path) -> Path:
    """Find the folder of the media."""
    (folder,) = directory.glob("wandb/offline-run-*/files")
    return folder
