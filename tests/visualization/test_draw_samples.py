import numpy as np
import pytest

from ssd_lightning.visualization.colours import class_colour
from ssd_lightning.visualization.draw_samples import MOST_TAGS, Sample, class_keys, draw_augmentation, draw_sample

GREY = np.full((120, 160, 3), 128, dtype=np.uint8)


def sample(boxes: list[list[float]], labels: list[int], difficult: list[bool] | None = None) -> Sample:
    given = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    marked = np.zeros(len(labels), dtype=bool) if difficult is None else np.array(difficult)
    return Sample(GREY, given, np.array(labels, dtype=np.int64), marked)


def coloured(image: np.ndarray, label: int) -> np.ndarray:
    return (image == np.array(class_colour(label))).all(-1)


def test_boxes_lie_where_they_are_annotated_whatever_the_scale() -> None:
    many = [[0.25, 0.25, 0.75, 0.5]] * (MOST_TAGS + 1)  # so many that none has a tag
    image = draw_sample(sample(many, [1] * len(many)), ["cat"], within_px=(240, 480))
    assert image.shape == (240, 320, 3)
    rows, columns = np.nonzero(coloured(image, 1))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (80, 60, 239, 119)


def test_difficult_objects_are_dashed() -> None:
    box = [[0.1, 0.1, 0.9, 0.9]] * (MOST_TAGS + 1)
    plain = draw_sample(sample(box, [1] * len(box)), ["cat"], within_px=(240, 320))
    dashed = draw_sample(sample(box, [1] * len(box), [True] * len(box)), ["cat"], within_px=(240, 320))
    assert 0.4 < coloured(dashed, 1).sum() / coloured(plain, 1).sum() < 0.6


def test_few_objects_have_their_class_written_at_them_and_many_have_not() -> None:
    few = draw_sample(sample([[0.3, 0.4, 0.7, 0.8]], [1]), ["cat"], within_px=(240, 320))
    other = draw_sample(sample([[0.3, 0.4, 0.7, 0.8]], [1]), ["dog"], within_px=(240, 320))
    assert (few != other).any()
    box = [[0.3, 0.4, 0.7, 0.8]] * (MOST_TAGS + 1)
    many = [draw_sample(sample(box, [1] * len(box)), [name], within_px=(240, 320)) for name in ("cat", "dog")]
    assert (many[0] == many[1]).all()


@pytest.mark.parametrize("name", ["", "x" * 2000, "Ünï 猫\n\x1b[0m", "\udce4"])
def test_any_class_name_and_no_object_at_all(name: str) -> None:
    rows = [[sample([[0.3, 0.4, 0.7, 0.8]], [1]), sample([], [])]] * 3
    sheet = draw_augmentation(rows, [name], image_size=(120, 160), title="t", cell_px=160)
    assert sheet.shape[1] == 2 * (160 + 18) + 18
    assert coloured(sheet, 1).any()


def test_the_legend_names_what_occurs() -> None:
    given = [sample([[0, 0, 1, 1]], [3]), sample([[0, 0, 1, 1]], [1])]
    assert [key.text for key in class_keys(given, ["a", "b", "c"])] == ["a", "c"]
    keys = class_keys([*given, sample([[0, 0, 1, 1]], [1], [True])], ["a", "b", "c"])
    assert keys[-1].text == "difficult"
    assert keys[-1].is_dashed
    names = [f"name {i}" for i in range(80)]
    many = class_keys([sample([[0, 0, 1, 1]] * 80, list(range(1, 81)))], names)
    assert many[-1].text == "and 56 more classes"
