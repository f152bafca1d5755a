from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.distributed_steps import records
from ssd_lightning.data.dataset import ImageAnnotation
from ssd_lightning.errors import ConfigurationError, DataError
from ssd_lightning.training.fault_tolerance import agreement
from ssd_lightning.training.fault_tolerance.agreement import Agreement, disagreement, record_digest

# On two real processes in test_distribution.py.


def ranks_with(monkeypatch: pytest.MonkeyPatch, *others: list[object]) -> None:
    """Let further ranks answer, each with one value for each question."""
    answers = [iter(other) for other in others]
    monkeypatch.setattr(agreement, "gather", lambda value: [value, *map(next, answers)])


def set_up(config: dict, *, world_size: int, stage: str = "fit", images: list[ImageAnnotation] | None = None) -> None:
    data = SimpleNamespace(dataset=lambda name: SimpleNamespace(records=images or records()))
    trainer = SimpleNamespace(world_size=world_size, datamodule=data)
    Agreement(config).setup(trainer, None, stage)  # type: ignore[arg-type]


def test_one_process_asks_nobody() -> None:
    set_up({"seed": 0}, world_size=1)


def test_a_test_run_asks_nobody() -> None:
    set_up({"seed": 0}, world_size=2, stage="test")


def test_other_software_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"python": "3.0.0", "torch": "1.0", "ssd_lightning": "0.0.1"}
    ranks_with(monkeypatch, ["other digest", {"seed": 0, "versions": versions}])
    with pytest.raises(ConfigurationError, match=r"rank 0 and rank 1 \(of 2\) have .*versions\.torch: .* and 1\.0"):
        set_up({"seed": 0}, world_size=2)


def test_every_rank_that_differs_is_named() -> None:
    text = disagreement("settings", {0: [], 1: ["seed: 0 and 1"], 2: [], 3: [f"key{n}: 0 and 1" for n in range(20)]})
    assert "rank 0 and rank 1 (of 4) have seed: 0 and 1 |" in text
    assert "rank 2" not in text
    assert "key7: 0 and 1; and 12 more" in text
    assert "key8" not in text


def test_missing_images_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "require_same_settings", lambda config: None)
    ranks_with(monkeypatch, ["other digest", []])
    with pytest.raises(DataError, match=r"different training images: .* 3 and 0 images"):
        set_up({}, world_size=2)


def test_where_a_image_lies_does_not_matter_but_what_it_shows_does() -> None:
    first = records()[0]
    fields = vars(first)
    assert record_digest(first) == record_digest(ImageAnnotation(**{**fields, "image_path": Path("/scratch/0.jpg")}))
    changed = {
        "size_px": (20, 31),
        "boxes_xyxy_px": first.boxes_xyxy_px + 1,
        "labels": first.labels + 1,
        "difficult": ~first.difficult,
    }
    digests = {record_digest(ImageAnnotation(**{**fields, key: value})) for key, value in changed.items()}
    assert len(digests | {record_digest(first)}) == 5


def test_the_digest_is_that_of_values_not_of_their_layout() -> None:
    first = records()[0]
    wide = np.repeat(first.boxes_xyxy_px.astype(np.float64), 2, axis=1)[:, ::2]
    assert record_digest(first) == record_digest(ImageAnnotation(**{**vars(first), "boxes_xyxy_px": wide}))
