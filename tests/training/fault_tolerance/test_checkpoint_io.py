import os
import resource
import zipfile
from pathlib import Path

import pytest
import torch

from ssd_lightning.errors import UserError, WeightsError
from ssd_lightning.training.fault_tolerance import checkpoint_io as checkpoint_file
from ssd_lightning.training.fault_tolerance.checkpoint_io import (
    AtomicCheckpointIO,
    check_intact,
    find_non_finite,
)


def content(value: float = 1.0) -> dict:
    return {"state_dict": {"net.a": torch.full((200, 50), value)}, "optimizer_states": [{"state": {0: {"m": None}}}]}


save = AtomicCheckpointIO().save_checkpoint


def value_of(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["state_dict"]["net.a"][0, 0])


def test_the_one_before_the_last_is_kept(tmp_path: Path) -> None:
    for value in (1.0, 2.0, 3.0):
        save(content(value), tmp_path / "last.ckpt")
        save(content(value), tmp_path / "best.ckpt")
    assert value_of(tmp_path / "last.ckpt") == 3
    assert value_of(tmp_path / "previous.ckpt") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


def test_so_it_is_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    for value in (1.0, 2.0):
        save(content(value), tmp_path / "last.ckpt")
    assert (value_of(tmp_path / "previous.ckpt"), value_of(tmp_path / "last.ckpt")) == (1, 2)


def test_a_full_disk_leaves_the_old_checkpoints_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    save(content(), last)
    opened = Path.open
    # Linux has a file that is always full.
    monkeypatch.setattr(Path, "open", lambda self, mode="r": opened(Path("/dev/full"), mode))
    with pytest.raises(UserError, match=r"no space for .*last.ckpt: the disk has \d+ MiB left.*resume=.*run continues"):
        save(content(2), last)
    monkeypatch.undo()
    assert list(last.parent.iterdir()) == [last]
    assert value_of(last) == 1


def test_a_limit_on_the_size_of_files_is_reported_the_same(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"no space for .*last\.ckpt"):
            save(content(), tmp_path / "last.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [("state_dict", torch.nan), ("current_model_state", torch.inf), ("optimizer_states", -torch.inf)],
)
def test_what_is_no_number_is_never_written(tmp_path: Path, value: float, place: str) -> None:
    save(content(), tmp_path / "last.ckpt")
    spoilt = content(2)
    bad = torch.zeros(4, 3)
    bad[2, 1] = value
    spoilt[place] = {"x": bad} if place != "optimizer_states" else [{"state": {0: {"momentum_buffer": bad}}}]
    with pytest.raises(UserError, match=rf"last.ckpt is not written: {place}.* is not finite"):
        save(spoilt, tmp_path / "last.ckpt")
    assert value_of(tmp_path / "last.ckpt") == 1


def test_counters_half_precision_and_nothing_are_finite() -> None:
    weights = {"n": torch.tensor(3), "h": torch.full((1000,), 60000.0, dtype=torch.float16), "e": torch.empty(0)}
    assert find_non_finite({"state_dict": weights | {"b": torch.ones(3, dtype=torch.bfloat16)}}) is None
    assert find_non_finite({}) is None


def test_what_does_not_read_back_is_not_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(content(), tmp_path / "last.ckpt")
    torch_save = torch.save

    def save_badly(what: object, file: object) -> None:
        torch_save(what, file)
        file.seek(4000)  # type: ignore[attr-defined]
        file.write(b"rot")  # type: ignore[attr-defined]

    monkeypatch.setattr(checkpoint_file.torch, "save", save_badly)
    with pytest.raises(WeightsError, match=r"last.ckpt.partial is damaged"):
        save(content(2), tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert value_of(tmp_path / "last.ckpt") == 1


def test_damage_anywhere_in_the_weights_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save(content(), path)
    check_intact(path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        parts = [(info.header_offset, info.file_size) for info in archive.infolist() if info.file_size > 1000]
    assert parts
    for start, size in parts:
        for place in (start + 300, start + size // 2, start + size):
            spoilt = bytearray(whole)
            spoilt[place] ^= 4
            path.write_bytes(bytes(spoilt))
            with pytest.raises(WeightsError, match="damaged"):
                check_intact(path)
