import pytest
import torch

from ssd_lightning.benchmarking import growth
from ssd_lightning.benchmarking.growth import Point, exponents, measure_growth
from ssd_lightning.models import SSD
from ssd_lightning.models.backbones import TinyBackbone
from ssd_lightning.models.extras import TinyExtras
from ssd_lightning.ops.priors import PriorLevel


def curve(axis: str, sizes: list[int], costs: list[float], part: str = "p") -> list[Point]:
    return [Point(part, axis, size, cost) for size, cost in zip(sizes, costs, strict=True)]


def test_exponents_of_known_growth() -> None:
    assert exponents(curve("boxes", [1, 10, 100], [1.0, 10.0, 1000.0])) == [None, pytest.approx(1), pytest.approx(2)]
    assert exponents(curve("classes", [1, 4], [3.0, 3.0])) == [None, pytest.approx(0)]
    # An image of a larger batch that costs the same makes a batch that costs as much more as it is larger.
    assert exponents(curve("batch", [1, 16], [5.0, 5.0])) == [None, pytest.approx(1)]
    # Twice the side is four times the pixels.
    assert exponents(curve("input", [256, 512], [1.0, 4.0])) == [None, pytest.approx(1)]


def test_exponents_stay_on_their_curve() -> None:
    points = [
        *curve("boxes", [0, 1, 2], [1.0, 1.0, 2.0]),
        *curve("batch", [4, 8], [1.0, 1.0]),
        *curve("batch", [9], [1.0], "q"),
    ]
    assert exponents(points) == [None, None, pytest.approx(1), None, pytest.approx(1), None]
    assert exponents([]) == []


def tiny_network(image_size: int) -> SSD:
    return SSD(
        backbone=TinyBackbone(channels=(4, 4, 4)),
        extras=TinyExtras,
        levels=[PriorLevel(None, None, share * image_size, None, (2,)) for share in (0.2, 0.4, 0.5, 0.7, 0.9)],
        image_size=image_size,
        num_classes=growth.NUM_CLASSES,
    )


def test_every_curve_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, sizes in {"BATCHES": (1, 2), "CLASSES": (1, 3), "BOXES": (0, 2), "INPUTS": (64, 96)}.items():
        monkeypatch.setattr(growth, name, sizes)
    monkeypatch.setattr(growth, "INPUT", 64)
    points = list(measure_growth(tiny_network, device=torch.device("cpu"), repeats=1, most_network_batch=1))
    curves = [(point.part, point.axis, point.size) for point in points]
    assert curves == [
        *[("loss", axis, size) for axis, sizes in AXES.items() for size in sizes],
        *[("postprocess", axis, size) for axis, sizes in AXES.items() if axis != "boxes" for size in sizes],
        ("network", "batch", 1),
        ("network", "input", 64),
        ("network", "input", 96),
    ]
    assert all(point.ms_a_image > 0 and point.mib_a_image > 0 for point in points)


AXES = {"batch": (1, 2), "classes": (1, 3), "boxes": (0, 2), "input": (64, 96)}
