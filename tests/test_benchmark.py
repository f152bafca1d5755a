import json
import re
import sys
from pathlib import Path

import pytest
import torch

from ssd_lightning import benchmark
from ssd_lightning.benchmarking import data_growth, growth, metric, predict, training
from ssd_lightning.config import compose_config
from ssd_lightning.errors import ConfigurationError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("what=speed", "what is 'speed'; it can be all, loss, postprocess"),
        ("what=[loss,speed]", "what is 'speed'"),
        ("pairs=0", "pairs is 0; it must be a whole number of at least 1"),
        ("pairs=1.5", "pairs is 1.5"),
        ("threads=-1", "threads is -1"),
        ("batch_size=none", "batch_size is 'none'"),
        ("precision=[float16]", "precision is 'float16'; it can be float32 or bfloat16"),
        ("predict_batch_sizes=[1,0]", "predict_batch_sizes is 0"),
        ("predict_batch_sizes=0", "predict_batch_sizes is 0"),
        ("predict_batch_sizes=null", "predict_batch_sizes is null; it must be a value or a list of them"),
        ("precision=null", "precision is null"),
        ("precision=float16", "precision is 'float16'"),
        ("what=null", "what is null"),
        ("what=[]", "what is []"),
        ("what=[loss,null]", "what is ['loss', None]"),
    ],
)
def test_values_that_cannot_be_used(override: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        benchmark.checked_parts(compose_config("benchmark", [override]))


def test_all_is_every_part_once() -> None:
    every = list(benchmark.PARTS)
    assert benchmark.checked_parts(compose_config("benchmark")) == every
    assert benchmark.checked_parts(compose_config("benchmark", ["what=[loss,all]"])) == every
    assert benchmark.checked_parts(compose_config("benchmark", ["what=[data,loss,data]"])) == ["data", "loss"]
    assert set(benchmark.PAIRS) | {"growth"} == set(every)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compile=foo", "compile is 'foo'; it can be null, default"),
        ("output=null", "output is null; it must be a folder"),
        ("output=taken/figures", "output=taken/figures: cannot write there: Not a directory"),
        ("output=taken", "output=taken: cannot write there: File exists"),
    ],
)
def test_what_cannot_be_used_is_reported_before_anything_is_measured(
    override: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setattr(benchmark, "measure", no_measurement)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        benchmark.benchmark(compose_config("benchmark", ["what=loss", override]))


def test_a_missing_peer_is_reported_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "measure", no_measurement)
    config = compose_config("benchmark", ["what=[loss,data,metric]", f"output={tmp_path}"])
    monkeypatch.setattr(metric, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pycocotools, which is not"):
        benchmark.benchmark(config)
    monkeypatch.delitem(sys.modules, "ssd_lightning.benchmarking.data", raising=False)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigurationError, match="what=data needs cv2, which is not installed"):
        benchmark.benchmark(config)


def no_measurement(*arguments: object) -> list:
    raise AssertionError("measured")


def test_single_values_are_lists_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def remember(**settings: object) -> list:
        seen.append({name: settings[name] for name in ("precision", "batch_size") if name in settings})
        return []

    monkeypatch.setattr(benchmark, "make_network", lambda *overrides: None)
    monkeypatch.setattr(training, "compare_training", remember)
    monkeypatch.setattr(predict, "compare_predict", remember)
    overrides = ["what=[train,predict]", "precision=bfloat16", "predict_batch_sizes=64", f"output={tmp_path}"]
    benchmark.benchmark(compose_config("benchmark", overrides))
    assert seen == [{"precision": "bfloat16", "batch_size": 32}, {"batch_size": 64}]


def test_figures_are_written_down_after_each_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    config = compose_config("benchmark", ["what=[loss,postprocess]", f"output={tmp_path}", "pairs=1", "batch_size=2"])
    measure = benchmark.measure

    def fails_at_the_second(part: str, *rest: object) -> list:
        if part == "postprocess":
            raise RuntimeError("interrupted")
        return measure(part, *rest)

    monkeypatch.setattr(benchmark, "measure", fails_at_the_second)
    with pytest.raises(RuntimeError, match="interrupted"):
        benchmark.benchmark(config)
    record = json.loads((tmp_path / "benchmark.json").read_text())
    assert [comparison["part"] for comparison in record["comparisons"]] == ["loss"]
    assert record["run"]["machine"]["threads"] == torch.get_num_threads()
    assert {"git_commit", "versions", "device"} <= record["run"].keys()
    assert (tmp_path / "benchmark.md").read_text().startswith("| what | ours | peer |")
    assert "torchvision" in capsys.readouterr().out


def test_growth_covers_every_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"BATCHES": (1, 2), "CLASSES": (1, 2), "BOXES": (0, 1), "INPUTS": (300,), "BATCH": 1}
    for name, value in small.items():
        monkeypatch.setattr(growth, name, value)
    monkeypatch.setattr(data_growth, "INPUTS", (300,))
    monkeypatch.setattr(data_growth, "WORKERS", (0,))
    monkeypatch.setattr(benchmark, "make_network", lambda *overrides: tiny_network(*overrides))
    record = benchmark.benchmark(compose_config("benchmark", ["what=growth", f"output={tmp_path}"]))
    axes = {(point["part"], point["axis"]) for point in record["growth"]}
    assert axes == {
        *(("loss", axis) for axis in ("batch", "classes", "boxes", "input")),
        *(("postprocess", axis) for axis in ("batch", "classes", "input")),
        ("network", "batch"),
        ("network", "input"),
        ("augmentation", "input"),
        ("loader", "workers"),
    }
    assert json.loads((tmp_path / "benchmark.json").read_text())["growth"] == record["growth"]


REAL = benchmark.make_network


def tiny_network(*overrides: str) -> torch.nn.Module:
    size = next((word for word in overrides if word.startswith("image_size")), "image_size=[300,300]")
    return REAL("backbone=tiny", size)
