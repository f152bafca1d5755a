import numpy as np
import pytest
import torch

from ssd_lightning.benchmark import TORCHVISION_SSD300, make_network
from ssd_lightning.benchmarking.predict import _share_found, compare_predict
from ssd_lightning.inference.results import ImageDetections


@pytest.mark.slow
def test_both_sides_see_nearly_the_same_with_the_same_weights() -> None:
    net = make_network(*TORCHVISION_SSD300)
    (comparison,) = compare_predict(net=net, pairs=1, device=torch.device("cpu"), batch_size=1)
    assert comparison.bar == 1.0
    assert comparison.note.startswith("channels_last on; ")
    share = int(comparison.note.split("; ")[1].split("%")[0])
    assert share >= 95


def test_a_box_is_found_by_its_class_and_place() -> None:
    box = torch.tensor([[0.1, 0.1, 0.5, 0.5]])
    in_pixels = box * torch.tensor([500.0, 375.0, 500.0, 375.0])
    ours = ImageDetections(
        image=np.zeros((375, 500, 3), np.uint8),
        boxes_xyxy_px=in_pixels.numpy(),
        scores=np.ones(1, np.float32),
        labels=np.array([2]),
        class_names=("a", "b"),
    )
    assert _share_found(ours, {"boxes": in_pixels, "labels": torch.tensor([2])}) == 1
    assert _share_found(ours, {"boxes": in_pixels, "labels": torch.tensor([1])}) == 0
    assert _share_found(ours, {"boxes": in_pixels + 20, "labels": torch.tensor([2])}) == 0
    assert _share_found(ours, {"boxes": in_pixels[:0], "labels": torch.tensor([2])[:0]}) == 1
