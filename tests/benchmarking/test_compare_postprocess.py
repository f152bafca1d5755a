import torch

from ssd_lightning.benchmarking.postprocess import _equal, compare_postprocess, trained_like_output
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.priors import SSD300_VOC, make_priors


def test_both_kinds_of_logits_are_measured_and_both_sides_detect_the_same() -> None:
    comparisons = compare_postprocess(pairs=1, device=torch.device("cpu"), batch_size=2, num_classes=3)
    assert [comparison.setting.split(",")[0] for comparison in comparisons] == ["random logits", "trained-like logits"]
    for comparison in comparisons:
        assert comparison.note.startswith("equal detections in 2 of 2 images")
        assert comparison.bar == 2.0
        assert len(comparison.ratios) == 1


def test_trained_like_is_background_but_for_a_few() -> None:
    output = trained_like_output(4, make_priors(SSD300_VOC, 300), 20)
    scores = output.class_logits.softmax(-1)
    assert (scores[..., 0] > 0.9).float().mean() > 0.98
    sure = (scores[..., 1:] > 0.5).any(-1).sum(1)
    assert ((sure >= 3) & (sure <= 500)).all()


def test_what_differs_is_not_called_equal() -> None:
    output = trained_like_output(1, make_priors(SSD300_VOC, 300), 20)
    (found,) = PostProcess()(output)
    in_pixels = {**found, "boxes": found["boxes"] * 300}
    assert _equal(found, in_pixels)
    assert not _equal(found, {**in_pixels, "boxes": in_pixels["boxes"] + 0.01})
    assert not _equal(found, {**in_pixels, "scores": found["scores"] * 1.001})
    assert not _equal(found, {**in_pixels, "labels": found["labels"].flip(0)})
    assert not _equal(found, {name: value[:-1] for name, value in in_pixels.items()})
