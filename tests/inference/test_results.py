import sys

import numpy as np
import pytest
import supervision

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.inference.results import ImageDetections

NAMES = ("cat", "dog", "Person")


def make(boxes: list[list[float]], scores: list[float], labels: list[int]) -> ImageDetections:
    return ImageDetections(
        image=np.full((40, 60, 3), 100, np.uint8),
        boxes_xyxy_px=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        labels=np.array(labels, np.int64),
        class_names=NAMES,
        source="a.jpg",
    )


@pytest.fixture
def found() -> ImageDetections:
    return make([[1, 2, 11, 22], [5.126, 5, 50, 39.5], [0, 0, 60, 40]], [0.9, 0.5, 0.12345], [3, 1, 3])


NONE = make([], [], [])


def test_names_and_selection(found: ImageDetections) -> None:
    assert found.names == ["Person", "cat", "Person"]
    assert (len(found), len(NONE), NONE.names) == (3, 0, [])
    assert found.select(0.5).scores.tolist() == [np.float32(0.9), 0.5]  # what reaches the threshold is kept
    for classes in (["Person"], "Person"):
        of_class = found.select(classes=classes)
        assert of_class.labels.tolist() == [3, 3]
        assert of_class.boxes_xyxy_px.tolist() == [[1, 2, 11, 22], [0, 0, 60, 40]]
    assert [len(found.select(0.2, ["Person", "dog"])), len(found.select(classes=[])), len(found.select())] == [1, 0, 3]
    assert len(NONE.select(0.3, ["cat"])) == 0
    assert of_class.source == "a.jpg"


@pytest.mark.parametrize(
    ("name", "answer"), [("perso", "nearest is 'Person'"), ("CAT", "nearest is 'cat'"), ("xyz", "classes are cat, dog")]
)
def test_an_unknown_class_is_named_with_the_nearest(found: ImageDetections, name: str, answer: str) -> None:
    with pytest.raises(ConfigurationError, match=f"does not know '{name}'; .*{answer}"):
        found.select(classes=[name])


def test_the_drawing_is_a_copy_of_the_images_size(found: ImageDetections) -> None:
    few, every, none = (np.asarray(found.draw(*threshold)) for threshold in ([], [0], [0.95]))
    np.testing.assert_array_equal(few, np.asarray(found.select(0.4).draw(0)))
    assert (few != 100).any()
    assert (every != few).any()
    for drawn in (none, np.asarray(NONE.draw()), found.image):
        np.testing.assert_array_equal(drawn, np.full((40, 60, 3), 100))


def test_the_record_is_plain_and_rounded(found: ImageDetections) -> None:
    record = found.as_record()
    assert (record["width"], record["height"]) == (60, 40)
    assert record["detections"][1:] == [
        {"class": "cat", "score": 0.5, "box_xyxy_px": [5.13, 5.0, 50.0, 39.5]},
        {"class": "Person", "score": 0.1235, "box_xyxy_px": [0.0, 0.0, 60.0, 40.0]},
    ]
    assert NONE.as_record() == {"width": 60, "height": 40, "detections": []}


def test_supervision_counts_classes_from_0_and_prints_their_names(
    found: ImageDetections, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted = found.to_supervision()
    np.testing.assert_array_equal(converted.xyxy, found.boxes_xyxy_px)
    np.testing.assert_array_equal(converted.confidence, found.scores)
    assert converted.class_id.tolist() == [2, 0, 2]
    assert converted.data["class_name"].tolist() == found.names
    assert len(supervision.Detections.merge([converted, NONE.to_supervision()])) == 3
    annotated = supervision.LabelAnnotator().annotate(found.image.copy(), converted)
    assert (annotated != found.image).any()
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ConfigurationError, match="pip install supervision"):
        found.to_supervision()
