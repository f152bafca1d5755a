"""The table gives back what was put in, however images and objects are chosen."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.datasets import annotation
from ssd_lightning.data.annotations import AnnotationTable, Columns, ImageAnnotation, TextColumn
from ssd_lightning.errors import DataError


def annotations(counts: list[int]) -> list[ImageAnnotation]:
    rng = np.random.default_rng(0)
    return [
        annotation(
            f"/folder/{index}.jpg",
            image_id=f"image {index}",
            size_px=(10 + index, 20 + index),
            boxes=rng.random((count, 4)),
            labels=rng.integers(1, 4, count),
            difficult=rng.random(count) < 0.5,
        )
        for index, count in enumerate(counts)
    ]


def same(left: ImageAnnotation, right: ImageAnnotation) -> bool:
    return all(np.array_equal(value, getattr(right, name)) for name, value in vars(left).items())


@given(st.lists(st.binary(max_size=9).map(lambda name: name.decode(errors="surrogateescape"))))
def test_texts_of_any_file_name(texts: list[str]) -> None:
    assert list(TextColumn.of(texts)) == texts


@pytest.mark.parametrize("counts", [[], [0], [2, 0, 3, 1]])
def test_a_table_is_a_sequence_of_annotations(counts: list[int]) -> None:
    given_ones = annotations(counts)
    table = AnnotationTable.of(given_ones)
    assert len(table) == len(counts)
    assert table.counts.tolist() == counts
    assert all(map(same, table, given_ones))
    assert table[-1:] == [] or same(table[-1:][0], given_ones[-1])
    with pytest.raises(IndexError):
        table[len(counts)]
    for one in table:
        assert (one.boxes_xyxy_px.dtype, one.labels.dtype, one.difficult.dtype) == (np.float32, np.int64, bool)


@pytest.mark.parametrize("column", ["labels", "boxes_xyxy_px", "difficult"])
def test_columns_of_an_image_have_one_length(column: str) -> None:
    first, second = annotations([2, 2])
    rows = np.concatenate([getattr(first, column), getattr(second, column)])
    with pytest.raises(DataError, match=r"image 'image 0': boxes, labels and flags have the shapes"):
        AnnotationTable.of([replace(first, **{column: rows[:3]}), replace(second, **{column: rows[3:]})])


@given(st.lists(st.integers(0, 3), max_size=6), st.data())
@settings(max_examples=40, deadline=None)
def test_columns_agree_with_rows_after_any_selection(counts: list[int], data: st.DataObject) -> None:
    columns = AnnotationTable.of(annotations(counts)).columns
    keeps = np.array(data.draw(st.lists(st.booleans(), min_size=sum(counts), max_size=sum(counts))), bool)
    label_map = np.array([0, 3, 1, 2])
    rows = data.draw(st.permutations(range(len(counts)))) if counts else []
    table = AnnotationTable(columns, keeps=keeps, label_map=label_map)
    chosen = table.select(np.array(rows[: len(rows) // 2 + 1], np.int64))
    objects = chosen.objects()
    assert chosen.counts.tolist() == [len(one.labels) for one in chosen]
    assert objects.image.tolist() == [index for index, one in enumerate(chosen) for _ in one.labels]
    for name in ("labels", "boxes_xyxy_px", "difficult"):
        assert getattr(objects, name).tolist() == [value for one in chosen for value in getattr(one, name).tolist()]
    assert chosen.sizes_px.tolist() == [list(one.size_px) for one in chosen]
    assert list(chosen.image_ids) == [one.image_id for one in chosen]
    assert [Path(path) for path in chosen.image_paths] == [one.image_path for one in chosen]


@pytest.mark.parametrize("counts", [[], [0, 0], [2, 0, 3]])
def test_a_table_is_mapped_from_its_files_in_every_process(tmp_path: Path, counts: list[int]) -> None:
    given_ones = annotations(counts)
    AnnotationTable.of(given_ones).columns.save(tmp_path)
    table = AnnotationTable(Columns.load(tmp_path))
    assert all(map(same, table, given_ones))
    text = pickle.dumps(table)
    assert len(text) < 2000  # the folder, not the arrays
    assert all(map(same, pickle.loads(text), given_ones))
    if sum(counts):
        with pytest.raises(ValueError, match="read-only"):
            table.columns.labels[0] = 5


def test_a_table_in_memory_goes_to_another_process_and_keeps_its_values() -> None:
    given_ones = annotations([2, 0, 1])
    table = pickle.loads(pickle.dumps(AnnotationTable.of(given_ones).select(np.array([2, 0]))))
    assert same(table[0], given_ones[2])
    table[1].boxes_xyxy_px[:] = -1  # of a copy
    table[1].difficult[:] = True
    assert same(table[1], given_ones[0])
