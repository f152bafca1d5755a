"""What the benchmark of the data path measures, not how fast it is."""

import cv2
import numpy as np
import torch

from ssd_lightning.benchmarking import data as benchmark
from ssd_lightning.benchmarking import data_growth
from ssd_lightning.benchmarking.data import compare_data, one_core, write_images
from ssd_lightning.data.images import read_image


def test_images_are_of_the_stated_size_and_stay(tmp_path):
    records = write_images(tmp_path / "images", 3)
    sizes = [record.image_path.stat().st_size for record in records]
    assert 70_000 < np.mean(sizes) < 130_000
    changed = [record.image_path.stat().st_mtime_ns for record in records]
    again = write_images(tmp_path / "images", 3)
    assert [record.image_path.stat().st_mtime_ns for record in again] == changed
    for record in records:
        assert read_image(record.image_path, record.size_px).shape == (375, 500, 3)
        assert record.boxes_xyxy_px.max(initial=0) <= 500
    assert any(len(record.labels) for record in records)


def test_three_comparisons_of_rates(tmp_path):
    comparisons = compare_data(pairs=2, images=2, image_size=64, folder=tmp_path)
    assert [each.bar for each in comparisons] == [0.5, None, None]
    for each in comparisons:
        assert each.unit == "images/s"
        assert len(each.ours) == len(each.theirs) == 2
        assert 1 < min(each.ours + each.theirs) < 1e5
        assert "2 images of" in each.note


def test_both_sides_of_torchvision_see_the_same_images(tmp_path):
    (record,) = write_images(tmp_path, 1)
    expected = read_image(record.image_path).astype(int)
    for decode in benchmark._DECODERS.values():
        assert np.abs(decode(record.image_path).permute(1, 2, 0).numpy() - expected).max() <= 1


def test_growth_has_a_point_for_each_size(tmp_path, monkeypatch):
    monkeypatch.setattr(data_growth, "INPUTS", (32, 64))
    monkeypatch.setattr(data_growth, "WORKERS", (0, 1))
    points = list(data_growth.measure_data(tmp_path, images=2, samples=32, repeats=1))
    curves = [
        ("augmentation", "input", 32),
        ("augmentation", "input", 64),
        ("loader", "workers", 0),
        ("loader", "workers", 1),
    ]
    assert [(point.part, point.axis, point.size) for point in points] == curves
    assert all(point.ms_a_image > 0 for point in points)


def test_one_core_is_given_back():
    before = torch.get_num_threads(), cv2.getNumThreads()
    with one_core():
        assert torch.get_num_threads() == 1
        assert cv2.getNumThreads() <= 1
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before
