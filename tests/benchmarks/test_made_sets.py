"""The made sets are read with `data=auto`, without a fault."""

from pathlib import Path
from random import Random

import made_sets
import pytest
from PIL import Image

from ssd_lightning.data.formats import Auto

XML = """<annotation><filename>{name}.jpg</filename><size><width>80</width><height>60</height><depth>3</depth></size>
<object><name>{label}</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>40</xmax><ymax>50</ymax></bndbox></object></annotation>"""


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    for name, label in [("a", "nine"), ("b", "ace"), *((f"c{number}", "ten") for number in range(8))]:
        (tmp_path / "cards/train").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 60), "teal").save(tmp_path / f"cards/train/{name}.jpg")
        (tmp_path / f"cards/train/{name}.xml").write_text(XML.format(name=name, label=label))
    (tmp_path / "aerial_maritime").mkdir()
    Image.new("RGB", (800, 600), "navy").save(tmp_path / "aerial_maritime/d.jpg")
    return tmp_path


def test_fruit(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        made_sets.make_fruit(tmp_path / folder / "train", 4, Random(0))
    found, again = (Auto().read(tmp_path / folder, "train") for folder in ("one", "two"))
    assert found.names == list(made_sets.FRUIT)
    assert found.problems == []
    assert len(found.columns.labels) > 4
    assert found.columns.boxes_xyxy_px.tolist() == again.columns.boxes_xyxy_px.tolist()


def test_boards_has_six_images_of_each_class_to_train(data_root: Path, tmp_path: Path) -> None:
    made_sets.make_boards(data_root / "cards", tmp_path / "boards", Random(0))
    train, valid = (Auto().read(tmp_path / "boards", split) for split in ("train", "valid"))
    assert (train.names, len(train.columns.labels)) == (["nine", "ten"], 7)
    assert (valid.names, len(valid.columns.labels)) == (["ten"], 2)


def test_plates(data_root: Path, tmp_path: Path) -> None:
    made_sets.make_plates(data_root, tmp_path / "plates", Random(0))
    found = Auto().read(tmp_path / "plates", "train")
    assert (found.names, found.problems) == (["plate"], [])
    assert len(found.columns.image_ids) == 11
    assert len(found.columns.labels) > 3
