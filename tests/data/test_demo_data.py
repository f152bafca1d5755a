"""The images that come with the package: real ones, whole, and at hand without a network or a root."""

from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate

from helpers.datasets import open_voc
from ssd_lightning.config import compose_config, find_folder
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.images import read_image
from ssd_lightning.training import DetectionDataModule

STAGES = ("train", "val", "test")


@pytest.fixture(scope="module")
def datasets() -> dict[str, DetectionDataset]:
    data: DetectionDataModule = instantiate(compose_config("train", ["data=demo"]).data.module, _convert_="all")
    data.prepare_data()
    return {stage: data.dataset(stage) for stage in STAGES}  # type: ignore[arg-type]


def test_they_are_small_and_bring_their_licence() -> None:
    folder = find_folder("demo_data")
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 5_000_000
    assert "MIT License" in (folder / "LICENSE").read_text()
    assert "https://github.com/Shenggan/BCCD_Dataset" in (folder / "README.md").read_text()


def test_every_image_and_box_is_sound(datasets: dict[str, DetectionDataset]) -> None:
    assert [len(datasets[stage]) for stage in STAGES] == [257, 35, 72]
    assert {dataset.class_names for dataset in datasets.values()} == {("Platelets", "RBC", "WBC")}
    assert [dataset.dropped for dataset in datasets.values()] == [[], [], []]
    records = [record for dataset in datasets.values() for record in dataset.annotations]
    assert len({record.image_path.name for record in records}) == 364
    for record in records:
        assert read_image(record.image_path, record.size_px).shape == (240, 320, 3)
    labels = np.concatenate([record.labels for record in records])
    assert np.bincount(labels).tolist() == [0, 361, 4153, 372]
    sides = [np.diff(r.boxes_xyxy_px.reshape(-1, 2, 2), axis=1)[r.labels == 1] for r in datasets["train"].annotations]
    assert np.median(np.concatenate(sides)) >= 16  # platelets stay learnable


def test_they_are_those_of_bccd_at_half_the_size(datasets: dict[str, DetectionDataset], shared_dir: Path) -> None:
    root = shared_dir / "data" / "bccd"
    if not root.is_dir():
        pytest.skip(f"no BCCD at {root}")
    of_split = {
        "trainval": (*datasets["train"].annotations, *datasets["val"].annotations),
        "test": datasets["test"].annotations,
    }
    for split, records in of_split.items():
        original = open_voc(splits=[{"root": str(root), "split": split}], on_error="skip")
        known = {record.image_id: record for record in original.annotations}
        assert sorted(known) == sorted(record.image_id for record in records)
        for record in records:
            np.testing.assert_allclose(2 * record.boxes_xyxy_px, known[record.image_id].boxes_xyxy_px, atol=1e-3)
            assert record.labels.tolist() == known[record.image_id].labels.tolist()
        told = [str(problem) for problem in original.dropped]
        assert ["'RBC' has no area" in text for text in told] == [True] * {"trainval": 2, "test": 0}[split]
