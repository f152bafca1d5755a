"""The convert command: every format, and what it refuses."""

import json
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from helpers import commands
from helpers.annotation_tools import put
from helpers.commands import run_command
from helpers.datasets import open_coco, open_csv, open_voc, open_yolo
from ssd_lightning.commands.convert import _report, convert
from ssd_lightning.config import compose_config
from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.data.images import read_image
from ssd_lightning.data.writers import FORMATS, written_class_names
from ssd_lightning.data.writing import image_names
from ssd_lightning.errors import DataError, UserError

READERS = {"voc": open_voc, "coco": open_coco, "yolo": open_yolo, "csv": open_csv}
CLASSES = ("sitting cat", "dog & co")
BOXES = {
    "train": {"a": [("dog & co", 0, (10, 20, 100, 80)), ("sitting cat", 1, (0, 0, 200, 100))], "b": [], "é c": []},
    "test": {"a": [("sitting cat", 0, (3, 4, 50, 60))]},
}

run = partial(run_command, Path())


def converted(root: Path, to: str, *overrides: str) -> Path:
    """Convert a data set of COCO to the folder `out` beside it, without the command around it."""
    arguments = ["data=coco_folder", f"data.root={root}", f"to={to}", f"output={root.parent}/out", *overrides]
    convert(compose_config("convert", arguments))
    return root.parent / "out"


def write_coco(root: Path, splits: Mapping[str, Sequence[tuple[str, int, float]]], classes: Sequence[str]) -> Path:
    """Write a COCO set of objects: (file name, index of the class, right edge), an entry of `images` each."""
    categories = [{"id": number, "name": name} for number, name in enumerate(classes)]
    for split, objects in splits.items():
        images = [{"id": n, "file_name": name, "width": 80, "height": 40} for n, (name, *_) in enumerate(objects)]
        annotations = [
            {"id": n, "image_id": n, "category_id": label, "bbox": [1, 2, right - 1, 30], "iscrowd": 0}
            for n, (_, label, right) in enumerate(objects)
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        put(root / f"annotations/instances_{split}.json", json.dumps(content))
    (root / "train").mkdir()
    return root


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of COCO, in which `train/a.jpg` and `test/a.jpg` are different images."""
    root = tmp_path_factory.mktemp("made") / "source"
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
    rng = np.random.default_rng(0)
    for split, of_split in BOXES.items():
        (root / split).mkdir(parents=True)
        images, annotations = [], []
        for number, (name, objects) in enumerate(of_split.items()):
            pixels = rng.integers(0, 255, (100, 200, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / f"{name}.jpg")
            images.append({"id": number, "file_name": f"{name}.jpg", "width": 200, "height": 100})
            for label, crowd, (x, y, r, b) in objects:
                box = {"category_id": CLASSES.index(label), "bbox": [x, y, r - x, b - y], "iscrowd": crowd}
                annotations.append({"image_id": number, **box})
        content = {"images": images, "annotations": annotations, "categories": categories}
        put(root / f"annotations/instances_{split}.json", json.dumps(content))
    return root


@pytest.fixture
def made(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "in")


def contents(form: str, root: Path, split: str, **settings: object) -> list[tuple[str, list[object], bytes]]:
    dataset = READERS[form](splits=[{"root": str(root), "split": split}], **settings)  # type: ignore[operator]
    return [
        (
            record.image_id.removeprefix(f"{split}_"),
            sorted(
                (dataset.class_names[label - 1], *box)
                for label, box in zip(record.labels, record.boxes_xyxy_px.tolist(), strict=True)
            ),
            record.image_path.read_bytes(),
        )
        for record in dataset.annotations
    ]


@pytest.mark.parametrize(("to", "images"), [("voc", "link"), ("yolo", "copy"), ("csv", "link")])
def test_every_format_keeps_images_boxes_and_classes(
    made: Path, tmp_path: Path, to: str, images: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run("convert", "data=coco_folder", f"data.root={made}", f"to={to}", f"output={tmp_path}/out", f"images={images}")

    for split in BOXES:
        assert contents(to, tmp_path / "out", split) == contents("coco", made, split)
    record = READERS[to](splits=[{"root": str(tmp_path / "out"), "split": "train"}]).annotations[0]
    assert sorted(record.difficult.tolist()) == [False, to != "yolo"]
    assert record.image_path.samefile(made / "train/a.jpg") is (images == "link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    said = "".join(capfd.readouterr())
    assert "train: 3 images, test: 1 images" in said
    assert ("cannot mark difficult objects: 1 become ordinary ones" in said) is (to == "yolo")


def test_what_training_holds_out_or_drops_is_converted_too(made: Path) -> None:
    out = converted(made, "voc", "data.val_fraction=0.9", "data.train_difficult=false", "split=train")
    assert contents("voc", out, "train") == contents("coco", made, "train")
    assert [path.stem for path in (out / "ImageSets/Main").iterdir()] == ["train"]


def test_a_validation_split_of_its_own_stays_one(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(made / "test", made / "valid")
    shutil.copy(made / "annotations/instances_test.json", made / "annotations/instances_valid.json")
    out = converted(made, "coco")
    for split, same in {"train": "train", "val": "test", "test": "test"}.items():
        assert contents("coco", out, split) == contents("coco", made, same)
    assert "data.train_split=train data.val_split=val data.test_split=test" in capsys.readouterr().out


@pytest.mark.parametrize(
    "folders",
    [
        {"train": "train", "val": "test", "test": "test"},
        {"train": "train", "val": "train"},
        {"train": "test", "val": "test", "test": "test"},
    ],
)
def test_data_yaml_has_what_ultralytics_asks_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, folders: dict[str, str]
) -> None:
    splits = set(folders.values())
    FORMATS["yolo"].write(tmp_path, {split: [] for split in splits}, CLASSES)
    text = (tmp_path / "data.yaml").read_text()
    # Without `path`, folders are relative to the file itself, whatever the working directory.
    stated = {**{key: f"images/{folder}" for key, folder in folders.items()}, "nc": 2, "names": list(CLASSES)}
    assert yaml.safe_load(text) == stated
    assert {path.name for path in (tmp_path / "labels").iterdir()} == splits
    told = [f"there is no {key} split: {key} is the {folder} split" for key, folder in folders.items() if key != folder]
    assert text.count("#") == len(caplog.records) == len(told)
    for sentence in told:
        assert f"# {sentence}" in text
        assert f"data.yaml: {sentence}" in caplog.text


def test_a_truncated_image_is_not_copied(made: Path) -> None:
    torn = made / "train/b.jpg"
    torn.write_bytes(torn.read_bytes()[:2000])
    with pytest.raises(DataError, match=f"{torn}: .*truncated"):
        converted(made, "csv")
    assert not (made.parent / "out").exists()
    out = converted(made, "csv", "images=none")  # no image is written
    assert len(list(out.rglob("*.csv"))) == 2
    assert not list(out.rglob("*.jpg"))
    shutil.rmtree(out)
    converted(made, "csv", "data.on_error=skip")
    assert [path.name for path in (out / "train").iterdir()] == ["a.jpg", "é c.jpg"]


def test_an_output_that_exists_is_left_alone_and_a_failure_leaves_nothing(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ssd_lightning.data.writing.shutil.copyfile", fail)
        with pytest.raises(DataError, match=r"cannot write the data set there.*No space left"):
            converted(made, "csv")
    assert [path.name for path in made.parent.iterdir()] == ["in"]
    (made.parent / "out").mkdir()
    out = converted(made, "csv")
    before = (out / "train.csv").stat().st_mtime_ns
    with pytest.raises(DataError, match="this folder already exists and is not changed"):
        converted(made, "csv")
    assert (out / "train.csv").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what to convert"),
        (["to=kitti"], "to is 'kitti'; it can be coco, csv, voc or yolo"),
        (["split=val"], "no val split of its own; its images are taken"),
        (["images=move"], "images is 'move'; it can be copy, link or none"),
        (["tiles=80", "images=link"], "tiles=80 writes new images"),
        (["data.root=/nowhere"], "there is no such folder"),
        (["data.train_split=x", "split=train"], "no split 'x'; there is"),
    ],
)
def test_what_cannot_be_converted(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    arguments = ["to=voc", f"output={tmp_path}/out", *arguments]
    if arguments[2:]:
        with pytest.raises(UserError, match=re.escape(said)):
            convert(compose_config("convert", ["data=coco_folder", f"data.root={source}", *arguments]))
    else:
        assert said in commands.refused(capsys, Path(), "convert", *arguments)
    assert not list(tmp_path.iterdir())


def test_a_image_that_yolo_would_see_turned_is_refused(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "in", {"train": [("a.jpg", 0, 9)]}, ("x",))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(root / "train/a.jpg", exif=exif)
    with pytest.raises(DataError, match=r"a\.jpg: .*upright it is 40 x 80 px"):
        converted(root, "yolo")
    assert len(open_csv(splits=[{"root": str(converted(root, "csv")), "split": "train"}])) == 1


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_a_network_trains_on_every_format(made: Path, tmp_path: Path, form: str) -> None:
    converted(made, form)
    run(
        "train", "experiment=toy_tiny", f"data={form}_folder", f"data.root={tmp_path}/out", "data.train_split=train",
        "data.test_split=test", "data.val_fraction=0", "data.batch_size=2", "data.num_workers=0", "image_size=[64,64]",
        "trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "~callbacks.progress",
        f"hydra.run.dir={tmp_path}/run",
    )  # fmt: skip
    assert list((tmp_path / "run/checkpoints").glob("*.ckpt"))


def test_a_name_with_a_line_feed_stays_one_line() -> None:
    def record(name: str) -> ImageAnnotation:
        return ImageAnnotation(name, Path(f"{name}.jpg"), (8, 8), np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))

    names = image_names({"train": [record("a\nb"), record("c d"), record("\udce9 \uffff")]})
    assert names == {"train": ["a_b", "c d", "_ _"]}
    names = image_names({"train": [record("cam1/f1"), record("cam1\\f1"), record("cam1_f1")]})
    assert names == {"train": ["cam1_f1", "train_cam1_f1", "train_cam1_f1_2"]}


def test_no_record_loses_its_annotations_to_another_of_its_name(tmp_path: Path) -> None:
    """One file may be in two splits or twice in one, each time with other objects."""
    objects = {"train": [("a.png", 0, 10), ("b.png", 0, 20), ("a.png", 1, 30)], "test": [("a.png", 1, 40)]}
    objects["test"].append(("train_a.png", 0, 50))
    root = write_coco(tmp_path / "in", objects, ("cat", "dog"))
    (root / "train").rename(root / "images")
    for name in ("a", "b", "train_a"):
        Image.new("RGB", (80, 40)).save(root / f"images/{name}.png")

    out = converted(root, "yolo")

    for split, expected in objects.items():
        records = open_yolo(splits=[{"root": str(out), "split": split}], class_names=["cat", "dog"]).annotations
        boxes = sorted((record.boxes_xyxy_px[:, 2].round().item(), record.labels.item() - 1) for record in records)
        assert boxes == sorted((right, label) for _, label, right in expected)
        kept = {"train": {"a.png", "b.png"}, "test": {"train_a.png"}}[split]
        assert kept <= {record.image_path.name for record in records}


@pytest.mark.parametrize("to", ["yolo", "csv"])
def test_blanks_around_names_are_not_written(tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    objects = [(" a.png", 0, 10), ("a.png", 1, 20), ("b .png", 0, 30), ("c 0.png", 0, 40), (" .png", 0, 50)]
    root = write_coco(tmp_path / "in", {"train": objects}, (" cat ", "dog\u00a0"))
    for name, _, right in objects:
        Image.new("RGB", (80, 40), (int(right), 0, 0)).save(root / "train" / name)

    out = converted(root, to)

    assert FORMATS[to].keeps_class_order or '\'data.class_names=["cat","dog"]\'' in capsys.readouterr().out
    dataset = READERS[to](splits=[{"root": str(out), "split": "train"}])
    assert dataset.class_names == ("cat", "dog")
    assert {image[0].unique().item(): target["labels"].item() - 1 for image, target in dataset} == {
        right: label for _, label, right in objects
    }
    assert {"a.png", "b.png", "c 0.png"} <= {record.image_path.name for record in dataset.annotations}


@pytest.mark.parametrize(
    ("to", "name", "said"),
    [
        ("voc", "a\ud83d", r"class 'a\ud83d' cannot be written as voc: it has a character"),
        ("csv", "a\ud83d", r"class 'a\ud83d' cannot be written as csv: it has a character"),
        ("voc", "a\rb", r"class 'a\rb' cannot be written"),
        ("voc", "a\uffff", r"class 'a\uffff' cannot be written"),
        ("csv", "1.0", "class '1.0' cannot be written"),
        ("coco", "  ", "class '  ' cannot be written as coco: it is empty"),
        ("coco", " cat", "the classes 'cat' and ' cat' become one"),
    ],
)
def test_a_class_that_cannot_be_written_is_named(to: str, name: str, said: str) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        written_class_names(("cat", name), to)


def test_a_class_name_with_control_characters_is_written_where_it_can_be(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "in", {"train": [("a.jpg", 0, 20)]}, ("a\x07b",))
    Image.new("RGB", (80, 40)).save(root / "train/a.jpg")
    with pytest.raises(DataError, match=r"class 'a\\x07b' cannot be written"):
        converted(root, "voc")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]  # it is named before anything is written
    dataset = open_yolo(splits=[{"root": str(converted(root, "yolo")), "split": "train"}])
    assert (dataset.class_names, len(dataset.annotations[0].labels)) == (("a\x07b",), 1)
    for to in ("coco", "csv"):
        assert written_class_names(("a\x07b",), to) == ("a\x07b",)


@pytest.mark.parametrize(
    "names",
    [
        ("disk", "ring"),
        ("- dash", "=SUM(1)", 'a, "b"', "größe <x> & y", "it's; 1"),
        ("null", "1", "[a]", "back\\", '\\"', "$HOME `x`", " led"),
    ],
)
def test_the_command_that_is_reported_keeps_every_class_name(
    names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    _report("csv", Path("a b"), {"train": 1}, names)
    command = capsys.readouterr().out.splitlines()[-1].removeprefix("train on it: ")
    overrides = shlex.split(command)
    assert overrides[:3] == ["python", "-m", "ssd_lightning.train"]
    settings = {
        parsed.key_or_group: parsed.value() for parsed in OverridesParser.create().parse_overrides(overrides[3:])
    }
    assert tuple(map(str, settings["data.class_names"])) == names
    assert settings["data.root"] == "a b"


@pytest.mark.parametrize("to", ["yolo", "csv"])
def test_written_images_have_an_ending_that_readers_list(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, to: str
) -> None:
    """Content decides where the ending is unknown; what ultralytics passes over it gets as JPEG or PNG."""
    kinds = {  # file -> its content, its written name for YOLO, and for the others
        "a": ("JPEG", "a.jpg", "a.jpg"),
        "b.dat": ("PNG", "b.dat.png", "b.dat.png"),
        "c.JPG": ("JPEG", "c.JPG", "c.JPG"),
        "d.jfif": ("JPEG", "d.jpg", "d.jfif"),
        "e.jpe": ("JPEG", "e.jpg", "e.jpe"),
        "f.gif": ("GIF", "f.png", "f.gif"),
        "g.jpg": ("GIF", "g.png", "g.jpg"),
        "h.pnm": ("PPM", "h.png", "h.pnm"),
        "i.tif": ("TIFF", "i.tif", "i.tif"),
    }
    root = write_coco(tmp_path / "in", {"train": [(name, 0, 20) for name in kinds]}, ("cat",))
    for number, (name, (content, *_)) in enumerate(kinds.items()):
        Image.new("RGB", (80, 40), (20 * number,) * 3).save(root / "train" / name, content)

    out = converted(root, to)

    dataset = READERS[to](splits=[{"root": str(out), "split": "train"}])
    records = {record.image_path.name: record for record in dataset.annotations}
    assert sorted(records) == sorted(names[1 if to == "yolo" else 2] for names in kinds.values())
    for number, (name, (content, *names)) in enumerate(kinds.items()):
        written = records[names[0 if to == "yolo" else 1]].image_path
        assert len(records[written.name].labels) == 1
        assert read_image(written).min() == read_image(written).max() == 20 * number
        if to != "yolo" or content not in ("GIF", "PPM"):
            assert written.read_bytes() == (root / "train" / name).read_bytes()
        else:
            assert written.read_bytes().startswith(b"\x89PNG")
    assert ("3 images have a type that readers" in caplog.text) == (to == "yolo")


def test_images_are_cut_into_tiles_with_their_objects(made: Path) -> None:
    out = converted(made, "voc", "tiles=80", "overlap=.25")
    splits = [{"root": str(made), "split": "train"}]
    whole = {record.image_id: record for record in open_coco(splits=splits).annotations}
    opened = open_voc(splits=[{"root": str(out), "split": "train"}], class_names=CLASSES)
    assert len(opened) == len(whole) * 2 * 3
    assert sorted(path.name for path in made.parent.iterdir()) == ["in", "out"]
    for index, tile in enumerate(opened.annotations):
        image_id, left, top = tile.image_id.rsplit("_", 2)
        source = whole[image_id]
        assert tile.size_px == (80, 80)
        cut = read_image(source.image_path)[int(top) : int(top) + 80, int(left) : int(left) + 80]
        difference = opened[index][0].permute(1, 2, 0).numpy().astype(int) - cut
        assert np.abs(difference).mean() < 12  # noise, saved as JPEG again
        inside = source.boxes_xyxy_px - np.array([left, top] * 2, np.float32)
        visible = np.prod(np.clip(inside, 0, 80)[:, 2:] - np.clip(inside, 0, 80)[:, :2], axis=1)
        kept = visible >= 0.3 * np.prod(inside[:, 2:] - inside[:, :2], axis=1)
        np.testing.assert_allclose(tile.boxes_xyxy_px, np.clip(inside[kept], 0, 80), atol=1e-3)
