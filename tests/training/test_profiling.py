import gzip
import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from helpers.small_training import Linear, quiet_trainer
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.training import profiling
from ssd_lightning.training.profiling import TraceProfiler, make_profiler


def fit(profiler: object, steps: int = 6) -> None:
    trainer = quiet_trainer(max_steps=steps, profiler=profiler)
    trainer.fit(Linear(), DataLoader(torch.zeros(40, 2), batch_size=2))


def test_a_trace_holds_its_steps_and_the_names_of_their_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        fit(TraceProfiler(tmp_path, skipped=1, warmup=1, active=3), steps=8)
    (path,) = tmp_path.iterdir()
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    names = [event.get("name", "") for event in events if event.get("cat") == "user_annotation"]
    assert sum(name == "[Strategy]SingleDeviceStrategy.training_step" for name in names) == 3
    assert any(event.get("name") == "aten::linear" for event in events)
    assert f"{path} (open it at" in caplog.text


def test_a_run_too_short_for_a_trace_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(TraceProfiler(tmp_path), steps=3)
    assert "ended after 3 of the 11 steps" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("local_rank", "rank", "name"),
    [(0, None, "trace"), (1, None, "trace_rank1"), (0, 8, "trace_rank8")],  # the last: the first of the third node
)
def test_every_rank_has_a_trace_of_its_own(
    tmp_path: Path, local_rank: int, rank: int | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rank is not None:
        dist = SimpleNamespace(is_available=lambda: True, is_initialized=lambda: True, get_rank=lambda: rank)
        monkeypatch.setattr(profiling, "dist", dist)
    profiler = TraceProfiler(tmp_path, skipped=0, warmup=1, active=1)
    profiler.setup("fit", local_rank=local_rank)
    for _ in range(2):
        profiler.start("run_training_batch")
        profiler.stop("run_training_batch")
    profiler.teardown("fit")
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.json.gz"]


@pytest.mark.parametrize("word", ["simple", "advanced"])
def test_lightnings_profilers_write_to_the_run_directory(
    word: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        fit(make_profiler(word, tmp_path))
    assert "run_training_batch" in (tmp_path / "fit-profile.txt").read_text()
    assert str(tmp_path / "fit-profile.txt") in caplog.text


@pytest.mark.parametrize("word", ["trance", True, {"folder": "here"}])
def test_a_name_that_is_no_profiler(word: object, tmp_path: Path) -> None:
    message = f"trainer.profiler is '{word}'; it can be simple, advanced or trace"
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        make_profiler(word, tmp_path)


def test_what_is_no_word_is_handed_on(tmp_path: Path) -> None:
    assert make_profiler(None, tmp_path) is None
    mine = TraceProfiler(tmp_path)
    assert make_profiler(mine, tmp_path) is mine
    described = OmegaConf.create({"_target_": "pytorch_lightning.profilers.PassThroughProfiler"})
    assert make_profiler(described, tmp_path) is described
