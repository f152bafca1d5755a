from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.evaluation_records import EMPTY, LEFT, ImageSpec, make_record, random_record
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.errors import DataError

RANDOM = random_record(0, difficult=0.3)


def assert_same(one: EvaluationRecord, two: EvaluationRecord) -> None:
    for name in ("split", "class_names", "image_ids", "image_paths"):
        assert getattr(one, name) == getattr(two, name)
    tables = [(record.sizes_px, *record.detections, *record.objects) for record in (one, two)]
    for column, other in zip(*tables, strict=True):
        assert column.dtype == other.dtype
        assert torch.equal(column, other)


ODD_NAMES = ("a\x00", "ü\udcff\n", "")
ODD = make_record([ImageSpec()] * 3, image_ids=ODD_NAMES, image_paths=ODD_NAMES)


@pytest.mark.parametrize("record", [*EMPTY.values(), RANDOM, ODD], ids=[*EMPTY, "random", "odd names"])
def test_what_is_saved_is_read_back(record: EvaluationRecord, tmp_path: Path) -> None:
    record.save(tmp_path / "new" / "val.npz")
    assert_same(EvaluationRecord.load(tmp_path / "new" / "val.npz"), record)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["val.npz"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "val.npz"
    RANDOM.save(path)
    before = path.read_bytes()

    def fill(file, **arrays: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fill)
    with pytest.raises(OSError, match="No space"):
        random_record(1).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": np.int64(9)}, "format 9; this version reads 1"),
        ({"names": np.frombuffer(b"{}", np.uint8)}, "is not an evaluation of this package, or it is damaged"),
        ({"names": np.array([{"split": 1}], dtype=object)}, "is not an evaluation"),
        ({"detections_counts": np.ones(30, np.int32)}, r"it has \d+ detections, but its images have 30"),
        ({"objects_counts": np.full(30, -1, np.int32)}, "objects, but its images have -30"),
        ({"objects_counts": np.zeros(0, np.int32)}, "30 images, but numbers of objects for 0"),
        ({"sizes_px": np.zeros((2, 2), np.int32)}, "30 images, but 30 paths and sizes of shape"),
        ({"detections_boxes": np.zeros((3, 4), np.float32)}, "columns of shapes"),
        ({"detections_labels": np.zeros(len(RANDOM.detections.labels), np.int16)}, "labels outside 1..4"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_file_whose_parts_do_not_fit_is_said(changed: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / "val.npz"
    RANDOM.save(path)
    np.savez(path, **dict(np.load(path)) | changed)
    with pytest.raises(DataError, match=message) as refused:
        EvaluationRecord.load(path)
    assert str(path) in str(refused.value)


def test_what_cannot_be_read_is_said_without_advice_to_read_it_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "val.npz"
    RANDOM.save(path)
    for content in (b"PK", b"", path.read_bytes()[:1000]):
        path.write_bytes(content)
        with pytest.raises(DataError) as refused:
            EvaluationRecord.load(path)
        assert str(refused.value) == f"{path} is not an evaluation of this package, or it is damaged"
    with pytest.raises(DataError, match=r"there is no evaluation nowhere\.npz"):
        EvaluationRecord.load("nowhere.npz")
    with pytest.raises(DataError, match=r"not an evaluation of this package, or it is damaged \(Is a directory\)"):
        EvaluationRecord.load(tmp_path)


def test_equal_scores_rank_in_the_order_of_the_record() -> None:
    record = make_record([ImageSpec(found=[(LEFT, 0.5, 1), (LEFT, 0.75, 2), (LEFT, 0.5, 3)])])
    assert record.ranked_detections(0.6).labels.tolist() == [2]
    assert record.ranked_detections().labels.tolist() == [2, 1, 3]
