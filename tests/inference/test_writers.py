"""What is written, read back by the readers of the formats."""

import csv
import itertools
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from helpers.datasets import open_coco, open_csv, open_voc
from helpers.pixels import save_turned
from ssd_lightning.data.images import read_image
from ssd_lightning.errors import DataError
from ssd_lightning.inference.frames import SourceImage
from ssd_lightning.inference.names import output_names
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.inference.sources import Source
from ssd_lightning.inference.video import Video
from ssd_lightning.inference.writers import OUTPUTS, Writers, refuse_replacing

CLASSES = ("a<b>&c", "dog", "größe")
RNG = np.random.default_rng(0)


def detections(image: np.ndarray, count: int) -> ImageDetections:
    """Boxes anywhere in an image, no side below 3 pixels."""
    height, width = image.shape[:2]
    low = RNG.uniform(0, [width - 3, height - 3], (count, 2))
    high = low + RNG.uniform(3, np.maximum(3.001, [width, height] - low))
    return ImageDetections(
        image=image,
        boxes_xyxy_px=np.hstack([low, np.minimum(high, [width, height])]).astype(np.float32),
        scores=np.sort(RNG.random(count)).astype(np.float32)[::-1],
        labels=RNG.integers(1, 4, count),
        class_names=CLASSES,
    )


def patches(height: int, width: int) -> np.ndarray:
    """Patches of 16 pixels in any colour, which JPEG keeps nearly."""
    colours = RNG.integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    return colours.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]


def image(path: Path, size_px: tuple[int, int], orientation: int = 1) -> SourceImage:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_turned(path, patches(*size_px), orientation)
    return SourceImage(Source("image", str(path)), read_image(path), path)


class Written(NamedTuple):
    """A run with all outputs in `folder`."""

    folder: Path
    source_images: list[SourceImage]
    found: list[ImageDetections]


def write(source_images: Sequence[SourceImage], found: Sequence[ImageDetections], folder: Path, *outputs: str) -> Path:
    folder.mkdir(exist_ok=True)
    names = output_names(list(dict.fromkeys(one.source for one in source_images)))
    header = {"checkpoint": "c.ckpt", "classes": list(CLASSES), "score_threshold": 0.4}
    settings = {"names": names, "header": header, "class_names": CLASSES, "skipped": ["x: is bad\n"]}
    with closing(Writers(outputs=outputs, folder=folder, **settings)) as writers:
        for source_image, detections_of_it in zip(source_images, found, strict=True):
            writers.write(source_image, detections_of_it)
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("written")
    frames = [patches(40, 50) for _ in range(3)]
    film = Source("video", str(folder / "in" / "film.mp4"))
    source_images = [
        image(folder / "in" / "one.jpg", (60, 90)),
        image(folder / "in" / "deep" / "one.png", (91, 33)),
        image(folder / "in" / "shot 1.JPG", (20, 30)),
        image(folder / "in" / "line\nfeed.jpg", (20, 30)),
        *(image(folder / "in" / f"turned{index}.jpg", (40, 70), index) for index in range(1, 9)),
        image(folder / "in" / "none.jpg", (20, 30)),
        *(SourceImage(film, frame, frame=2 * i, fps=4.0, time_s=i / 4) for i, frame in enumerate(frames)),
        SourceImage(Source("url", "http://host/x/one.jpg?size=3"), frames[0]),
    ]
    found = [detections(one.image, 0 if "none" in str(one.source) else 5) for one in source_images]
    return Written(write(source_images, found, folder / "out", *OUTPUTS), source_images, found)


@pytest.mark.parametrize(("layout", "reader", "split"), [("voc", open_voc, "trainval"), ("coco", open_coco, "train")])
def test_a_data_set_reads_back_to_the_same_boxes_in_the_same_pixels(
    written: Written, layout: str, reader: Callable, split: str
) -> None:
    records = reader(splits=[{"root": str(written.folder / layout), "split": split}], class_names=CLASSES).annotations
    for record, source_image, expected in zip(records, written.source_images, written.found, strict=True):
        np.testing.assert_allclose(record.boxes_xyxy_px, expected.boxes_xyxy_px, rtol=0, atol=2e-4)  # 4 decimals
        assert record.labels.tolist() == expected.labels.tolist()
        assert not record.difficult.any()
        pixels = read_image(record.image_path, record.size_px)
        assert pixels.shape == source_image.image.shape
        difference = np.abs(pixels.astype(int) - source_image.image)
        if source_image.path is None or source_image.path.stem in {f"turned{index}" for index in range(2, 9)}:
            assert difference.mean() < 8
            with Image.open(record.image_path) as stored:  # not all annotation tools apply a rotation
                assert not stored.getexif()
        else:  # it was copied
            assert difference.max() == 0


def test_specks_are_left_out_of_data_sets(tmp_path: Path) -> None:
    source_image = image(tmp_path / "one.png", (60, 90))
    boxes = np.array([[0.2, 0.2, 1.1, 1.3], [5, 5, 5, 50], [10, 10, 12, 12.5]], np.float32)
    labels, scores = np.array([1, 2, 3]), np.array([0.9, 0.8, 0.7], np.float32)
    specks = ImageDetections(source_image.image, boxes, scores, labels, CLASSES)
    root = write([source_image], [specks], tmp_path / "out", "coco") / "coco"
    [record] = open_coco(splits=[{"root": str(root), "split": "train"}], class_names=CLASSES).annotations
    assert record.labels.tolist() == [3]


def test_coco_results_are_what_its_own_tools_read(written: Written) -> None:
    path = written.folder / "coco" / "annotations" / "instances_train.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [category["name"] for category in content["categories"]] == list(CLASSES)
    truth = COCO(str(path))
    results = truth.loadRes(content["annotations"])  # a list of results: image_id, category_id, bbox, score
    for image_id, expected in zip(truth.getImgIds(), written.found, strict=True):
        rows = results.loadAnns(results.getAnnIds([image_id]))
        assert [row["score"] for row in rows] == pytest.approx(expected.scores.tolist(), abs=1e-4)
        assert [row["category_id"] for row in rows] == expected.labels.tolist()


def test_json_has_every_image_and_frame(written: Written) -> None:
    report = json.loads((written.folder / "predictions.json").read_text())
    assert list(report) == ["checkpoint", "classes", "score_threshold", "images", "skipped"]
    assert report["skipped"] == ["x: is bad\n"]
    for entry, source_image, expected in zip(report["images"], written.source_images, written.found, strict=True):
        assert (entry["file"], entry.get("frame")) == (str(source_image.source), source_image.frame)
        assert {key: entry[key] for key in ("width", "height", "detections")} == expected.as_record()
        if source_image.frame is None:
            assert Image.open(written.folder / entry["drawn"]).size == (entry["width"], entry["height"])
            assert "time_s" not in entry
        else:
            assert (entry["drawn"], entry["time_s"]) == ("film.mp4", source_image.time_s)
    drawn = [entry["drawn"] for entry in report["images"] if entry.get("frame", 0) == 0]
    assert len(set(drawn)) == len(drawn)
    assert not list(written.folder.glob("*.part"))


def test_csv_has_a_row_a_detection(written: Written) -> None:
    with (written.folder / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    groups = [list(group) for _, group in itertools.groupby(rows, lambda row: (row["image"], row["frame"]))]
    for group, source_image, expected in zip(groups, written.source_images, written.found, strict=True):
        frame = "" if source_image.frame is None else str(source_image.frame)
        assert {(row["image"], row["frame"]) for row in group} == {(str(source_image.source), frame)}
        assert [row["label"] for row in group] == (expected.names or [""])
        if len(expected):
            assert [float(row["score"]) for row in group] == pytest.approx(expected.scores.tolist(), abs=6e-5)


def test_the_projects_own_reader_takes_the_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source_images = [image(Path("shots/one.png"), (60, 90)), image(Path("shots/two.png"), (50, 50))]
    found = [detections(one.image, count) for one, count in zip(source_images, (4, 0), strict=True)]
    write(source_images, found, Path("out"), "csv", "json")
    data = open_csv(splits=[{"root": ".", "split": "out/predictions.csv"}], images=".", class_names=CLASSES)
    for record, expected in zip(data.annotations, found, strict=True):
        np.testing.assert_allclose(record.boxes_xyxy_px, expected.boxes_xyxy_px, rtol=0, atol=0.0051)
    entries = json.loads(Path("out/predictions.json").read_text())["images"]
    assert [entry["drawn"] for entry in entries] == [None, None]


def test_the_annotated_video_has_every_frame(written: Written) -> None:
    video = Video(written.folder / "film.mp4")
    assert video.fps == 4.0
    drawn = [np.asarray(one.draw(score_threshold=0)) for one in written.found[-4:-1]]
    nearest = [np.argmin([np.abs(frame.astype(int) - one).mean() for one in drawn]) for _, frame in video.frames()]
    assert nearest == [0, 1, 2]


def test_two_videos_one_after_the_other(tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    sources = [Source("video", "a/film.mp4"), Source("camera", "0"), Source("video", "b/film.mp4")]
    source_images = [SourceImage(source, image, frame=i) for source in sources for i in range(4)]
    folder = write(source_images, [detections(image, 0)] * 12, tmp_path / "out", "images")
    assert sorted(path.name for path in folder.iterdir()) == ["camera_0.mp4", "film.mp4", "film_2.mp4"]
    assert [len(list(Video(path).frames())) for path in folder.iterdir()] == [4, 4, 4]


def refuse(output: Path, source: Source, *outputs: str) -> None:
    refuse_replacing(outputs, output, sources=[source], names=output_names([source]))


@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_no_output_takes_the_place_of_an_original(tmp_path: Path, link: str | None) -> None:
    original = image(tmp_path / "in" / "one.jpg", (6, 9)).source
    film = Source("video", str(tmp_path / "in" / "film.mp4"))
    Path(film.address).touch()
    output = tmp_path / ("out" if link else "in")
    output.mkdir(exist_ok=True)
    for source in (original, film):
        if link:
            getattr(output / Path(source.address).name, link)(source.address)
        with pytest.raises(DataError, match="would replace the image"):
            refuse(output, source, "json", "images")
        refuse(output, source, "json")


def test_a_data_set_neither_grows_out_of_itself_nor_loses_what_was_corrected(tmp_path: Path) -> None:
    source = image(tmp_path / "voc" / "JPEGImages" / "one.png", (6, 9)).source
    with pytest.raises(DataError, match="voc exists, and may hold labels that were corrected by hand"):
        refuse(tmp_path, source, "voc")
    refuse(tmp_path, source, "images", "coco")


def test_class_names_that_a_layout_cannot_hold_are_reported_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "predictions.json").write_text("earlier")
    with pytest.raises(DataError, match="'a '"):
        Writers(outputs=["json", "voc"], folder=tmp_path, names={}, header={}, class_names=["a", "a "], skipped=[])
    assert (tmp_path / "predictions.json").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 1
