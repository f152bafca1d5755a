import pytest

from ssd_lightning.benchmarking import metric
from ssd_lightning.benchmarking.metric import compare_metric, made_evaluation
from ssd_lightning.errors import ConfigurationError


def test_both_sides_see_the_same_evaluation() -> None:
    """The area under the curve and its value at 101 points are two numbers, but not far apart."""
    pytest.importorskip("pycocotools")
    comparison, slowest = compare_metric(pairs=9, images=200, detections=20, num_classes=3)
    overrides = comparison.note.replace(",", "").split()
    area, points = float(overrides[overrides.index("area") + 1]), float(overrides[-1])
    assert 0.3 < area < 1
    assert area == pytest.approx(points, abs=0.02)
    assert len(comparison.ratios) == 3
    assert "pairs: 3" in comparison.note
    assert (slowest.ours, slowest.theirs, slowest.bar) == ((max(comparison.ours),), (5.0,), 1.0)
    assert slowest.at_most  # 5 s are a bar of their own, whatever the peer takes


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pycocotools, which is not installed"):
        compare_metric(pairs=1, images=1)


@pytest.mark.parametrize("detections", [1, 2, 50])
def test_every_image_has_as_many_detections_as_asked_for(detections: int) -> None:
    preds, targets = made_evaluation(images=30, detections=detections, num_classes=4)
    assert len(preds) == len(targets) == 30
    for pred, target in zip(preds, targets, strict=True):
        assert pred["boxes"].shape == (detections, 4)
        assert pred["scores"].diff().le(0).all()
        assert 1 <= len(target["labels"]) <= 5
        assert {1, 2, 3, 4} >= set(pred["labels"].tolist())
