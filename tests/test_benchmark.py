import json
from pathlib import Path

import pytest
import torch

from ssd_lightning import benchmark
from ssd_lightning.benchmarking import data_growth, growth
from ssd_lightning.configs import compose_config
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
    ],
)
def test_values_that_cannot_be_used(override: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message.replace("[", r"\[")):
        benchmark.checked_parts(compose_config("benchmark", [override]))


def test_all_is_every_part_once() -> None:
    every = list(benchmark.PARTS)
    assert benchmark.checked_parts(compose_config("benchmark")) == every
    assert benchmark.checked_parts(compose_config("benchmark", ["what=[loss,all]"])) == every
    assert benchmark.checked_parts(compose_config("benchmark", ["what=[data,loss,data]"])) == ["data", "loss"]
    assert set(benchmark.PAIRS) | {"growth"} == set(every)


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
    assert "torchvision SSD" in capsys.readouterr().out


def test_growth_covers_every_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"BATCHES": (1, 2), "CLASSES": (1, 2), "BOXES": (0, 1), "INPUTS": (300,), "BATCH": 1}
    for name, value in small.items():
        monkeypatch.setattr(growth, name, value)
    monkeypatch.setattr(data_growth, "INPUTS", (300,))
    monkeypatch.setattr(data_growth, "WORKERS", (0,))
    monkeypatch.setattr(benchmark, "make_network", lambda *words: tiny_network(*words))
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


def tiny_network(*words: str) -> torch.nn.Module:
    size = next((word for word in words if word.startswith("image_size")), "image_size=[300,300]")
    return REAL("backbone=tiny", size)
