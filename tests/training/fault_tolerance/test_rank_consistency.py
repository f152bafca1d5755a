from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.distributed_steps import records
from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.training.fault_tolerance.rank_consistency import (
    RankConsistencyCheck,
    record_digest,
    require_same,
    statement,
)

# On two real processes in test_distribution.py.


@pytest.mark.parametrize(("world_size", "stage"), [(1, "fit"), (2, "test")])
def test_one_process_and_a_test_compare_nothing(world_size: int, stage: str) -> None:
    trainer = SimpleNamespace(world_size=world_size)  # without data, and without a process group
    RankConsistencyCheck({"seed": 0}).setup(trainer, None, stage)  # type: ignore[arg-type]


def test_settings_without_effect_may_differ() -> None:
    require_same([statement({"data": {"num_workers": rank}, "seed": 0}, records()) for rank in range(2)])


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (statement({"seed": 1}, records()), "seed: 0 and 1"),
        (statement({"seed": 0}, records()) | {"versions": {"torch": "1.0"}}, r"versions\.torch: .* and 1\.0"),
        (statement({"seed": 0}, records(count=4)), r"training_images\.3: nothing and image3 "),
        (statement({"seed": 0}, records(name="other")), r"training_images\.0: image0 .* and other0 "),
        (statement({"seed": 0}, records(shift=0.5)), r"training_images\.0: image0 .* and image0 "),
        (statement({"seed": 0}, records(count=20)), "; and 9 more"),
    ],
)
def test_what_differs_is_named(other: dict, named: str) -> None:
    same = statement({"seed": 0}, records())
    with pytest.raises(ConfigurationError, match=rf"rank 0 and rank 1 \(of 3\) have .*{named}") as caught:
        require_same([same, other, same])
    assert "rank 2" not in str(caught.value)


def test_the_path_and_the_memory_layout_of_an_annotation_do_not_matter() -> None:
    first = records()[0]
    wide = np.repeat(first.boxes_xyxy_px.astype(np.float64), 2, axis=1)[:, ::2]
    same = ImageAnnotation(**{**vars(first), "image_path": Path("/scratch/0.jpg"), "boxes_xyxy_px": wide})
    changed = {"size_px": (20, 31), "labels": first.labels + 1, "difficult": ~first.difficult}
    digests = {record_digest(ImageAnnotation(**{**vars(first), key: value})) for key, value in changed.items()}
    assert record_digest(same) == record_digest(first)
    assert len(digests | {record_digest(first)}) == 4
