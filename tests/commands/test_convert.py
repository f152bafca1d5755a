"""The convert command: every format, and what it refuses."""

import re
import shlex
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra.utils import instantiate
from PIL import Image

from helpers import commands
from helpers.annotation_tools import CASES, Spec, Thing, coco_json, open_case, put, write_coco
from helpers.commands import run_command
from helpers.pixels import save_turned
from ssd_lightning.commands.convert import convert
from ssd_lightning.config import compose_config
from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.images import read_image
from ssd_lightning.data.writers import FORMATS, written_class_names
from ssd_lightning.data.writing import image_names
from ssd_lightning.errors import DataError, UserError

CLASSES = ("sitting cat", "dog & co")
SPLITS = {
    "train": [
        Spec("a.jpg", (100, 200), (Thing("dog & co", (10, 20, 100, 80)), Thing("sitting cat", (0, 0, 200, 100), True))),
        Spec("b.jpg", (100, 200)),
        Spec("é c.jpg", (100, 200)),
    ],
    "test": [Spec("a.jpg", (100, 200), (Thing("sitting cat", (3, 4, 50, 60)),))],
}

run = partial(run_command, Path())


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder of COCO, in which `train/a.jpg` and `test/a.jpg` are different images."""
    rng = np.random.default_rng(0)
    for split, images in SPLITS.items():
        write_coco(tmp_path / "in", split, images, names=CLASSES)
        for path in (tmp_path / "in" / split).iterdir():
            Image.fromarray(rng.integers(0, 255, (100, 200, 3), dtype=np.uint8)).save(path)
    return tmp_path / "in"


def converted(root: Path, to: str, *overrides: str) -> Path:
    """Convert a data set of COCO to the folder `out` beside it, without the command around it."""
    arguments = ["data=coco_folder", f"data.root={root}", f"to={to}", f"output={root.parent}/out", *overrides]
    convert(compose_config("convert", arguments))
    return root.parent / "out"


def opened(form: str, root: Path, split: str = "train", **settings: Any) -> DetectionDataset:
    return open_case(CASES[form], root, split=split, **settings)


def contents(dataset: DetectionDataset) -> list[tuple[str, list[Any], bytes]]:
    """The name of each image, but for a split in front of it, its objects, and the bytes of its file."""
    return [
        (
            re.sub("^(val|test)_", "", record.image_id),
            sorted(
                (dataset.class_names[label - 1], *box)
                for label, box in zip(record.labels, record.boxes_xyxy_px.tolist(), strict=True)
            ),
            record.image_path.read_bytes(),
        )
        for record in dataset.annotations
    ]


def reported_overrides(output: str) -> list[str]:
    """The overrides of the command that is reported at the end."""
    command = shlex.split(output.splitlines()[-1].removeprefix("train on it: "))
    assert command[:3] == ["python", "-m", "ssd_lightning.train"]
    return command[3:]


@pytest.mark.parametrize(("to", "images"), [("voc", "link"), ("yolo", "copy"), ("csv", "link"), ("coco", "copy")])
def test_the_reported_command_opens_the_same_images_boxes_and_classes(
    made: Path, tmp_path: Path, to: str, images: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run("convert", "data=coco_folder", f"data.root={made}", f"to={to}", f"output={tmp_path}/out", f"images={images}")

    said = capfd.readouterr().out
    assert "experiment=finetune" in said  # the default settings are made for more images
    whole = ["data.val_fraction=0", *["data.train_difficult=true"] * (to != "yolo")]
    config = compose_config("train", [*reported_overrides(said), *whole])
    module = instantiate(config.data.module, _convert_="all")
    assert module.class_names == CLASSES
    for split in SPLITS:
        assert contents(module.dataset(split)) == contents(opened("coco", made, split))
    record = module.dataset("train").annotations[0]
    assert sorted(record.difficult.tolist()) == [False, to != "yolo"]
    assert record.image_path.samefile(made / "train/a.jpg") is (images == "link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert "train: 3 images, test: 1 images" in said
    assert ("cannot mark difficult objects: 1 become ordinary ones" in said) is (to == "yolo")


def test_what_training_holds_out_or_drops_is_converted_too(made: Path) -> None:
    out = converted(made, "voc", "data.val_fraction=0.9", "data.train_difficult=false", "split=train")
    assert contents(opened("voc", out)) == contents(opened("coco", made))
    assert [path.stem for path in (out / "ImageSets/Main").iterdir()] == ["train"]


def test_a_validation_split_of_its_own_stays_one(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(made / "test", made / "valid")
    shutil.copy(made / "annotations/instances_test.json", made / "annotations/instances_valid.json")
    out = converted(made, "coco")
    for split, same in {"train": "train", "val": "test", "test": "test"}.items():
        assert contents(opened("coco", out, split)) == contents(opened("coco", made, same))
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
    number = (made.parent / "out").stat().st_ino  # it may be the current directory
    out = converted(made, "csv", "tiles=80")
    assert out.stat().st_ino == number
    assert sorted(path.name for path in out.iterdir()) == ["test", "test.csv", "train", "train.csv"]
    before = (out / "train.csv").stat().st_mtime_ns
    with pytest.raises(DataError, match="it already exists and is not changed"):
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
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    arguments = ["to=voc", f"output={tmp_path}/out", *arguments]
    if arguments[2:]:
        with pytest.raises(UserError, match=re.escape(said)):
            convert(compose_config("convert", ["data=coco_folder", f"data.root={made}", *arguments]))
    else:
        assert said in commands.refused(capsys, Path(), "convert", *arguments)
    assert list(tmp_path.iterdir()) == [made]


def test_a_image_that_yolo_would_see_turned_is_refused(tmp_path: Path) -> None:
    write_coco(root := tmp_path / "in", "train", [Spec("a.jpg", (40, 80))])
    save_turned(root / "train/a.jpg", np.zeros((40, 80, 3), np.uint8), 6)
    with pytest.raises(DataError, match=r"a\.jpg: .*upright it is 40 x 80 px"):
        converted(root, "yolo")
    assert len(opened("csv", converted(root, "csv"), class_names=["cat"])) == 1


def test_a_name_with_a_line_feed_stays_one_line() -> None:
    def record(name: str) -> ImageAnnotation:
        return ImageAnnotation(name, Path(f"{name}.jpg"), (8, 8), np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))

    names = image_names({"train": [record("a\nb"), record("c d"), record("\udce9 \uffff")]})
    assert names == {"train": ["a_b", "c d", "_ _"]}
    names = image_names({"train": [record("cam1/f1"), record("cam1\\f1"), record("cam1_f1")]})
    assert names == {"train": ["cam1_f1", "train_cam1_f1", "train_cam1_f1_2"]}
    names = image_names({"train": [record("A"), record("a")], "test": [record("B"), record("TRAIN_A")]})
    assert names == {"train": ["A", "train_a_2"], "test": ["B", "TRAIN_A"]}  # some file systems ignore case
    names = image_names({"train": [record(".a"), record("__MACOSX"), record("a.b")]})
    assert names == {"train": ["image_.a", "image___MACOSX", "a.b"]}  # readers skip hidden files


def with_edges(images: Sequence[tuple[str, str, int]]) -> list[Spec]:
    """Images of 80 x 40 px of (name, class, right edge of the object)."""
    return [Spec(name, (40, 80), (Thing(label, (1, 2, right, 32)),)) for name, label, right in images]


def test_no_record_loses_its_annotations_to_another_of_its_name(tmp_path: Path) -> None:
    """One file may be in two splits or twice in one, each time with other objects."""
    objects = {
        "train": [("a.png", "cat", 10), ("b.png", "cat", 20), ("a.png", "dog", 30)],
        "test": [("a.png", "dog", 40), ("train_a.png", "cat", 50)],
    }
    for split, images in objects.items():
        path = write_coco(tmp_path / "in", "images", with_edges(images))
        path.rename(path.with_name(f"instances_{split}.json"))

    out = converted(tmp_path / "in", "yolo")

    for split, expected in objects.items():
        dataset = opened("yolo", out, split)
        found = {(record.labels.item(), record.boxes_xyxy_px[0, 2].round()) for record in dataset.annotations}
        assert found == {(dataset.class_names.index(label) + 1, right) for _, label, right in expected}
        kept = {"train": {"a.png", "b.png"}, "test": {"train_a.png"}}[split]
        assert kept <= {record.image_path.name for record in dataset.annotations}


@pytest.mark.parametrize("to", ["yolo", "csv"])
def test_blanks_around_names_are_not_written(tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = (" cat ", "dog\u00a0")
    files = (" a.png", "a.png", "b .png", "c 0.png", " .png")
    images = with_edges([(file, names[number % 2], 10 * number + 10) for number, file in enumerate(files)])
    write_coco(tmp_path / "in", "train", images, names=names)

    out = converted(tmp_path / "in", to)

    assert FORMATS[to].keeps_class_order or '\'data.class_names=["cat","dog"]\'' in capsys.readouterr().out
    dataset = opened(to, out)
    assert dataset.class_names == ("cat", "dog")
    found = {record.boxes_xyxy_px[0, 2].round(): record.labels.item() for record in dataset.annotations}
    assert found == {10: 1, 20: 2, 30: 1, 40: 2, 50: 1}
    assert {"a.png", "b.png", "c 0.png"} <= {record.image_path.name for record in dataset.annotations}


@pytest.mark.parametrize(
    ("to", "name", "said"),
    [
        ("csv", "a\ud83d", r"class 'a\ud83d' cannot be written as csv: it has a character"),
        ("voc", "a\rb", r"class 'a\rb' cannot be written"),
        ("voc", "a\uffff", r"class 'a\uffff' cannot be written"),
        ("csv", "1.0", "class '1.0' cannot be written"),
        ("csv", "NaN", "class 'NaN' cannot be written"),
        ("coco", "  ", "class '  ' cannot be written as coco: it is empty"),
        ("coco", " cat", "the classes 'cat' and ' cat' become one"),
    ],
)
def test_a_class_that_cannot_be_written_is_named(to: str, name: str, said: str) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        written_class_names(("cat", name), to)


def test_a_class_name_with_control_characters_is_written_where_it_can_be(tmp_path: Path) -> None:
    root = tmp_path / "in"
    write_coco(root, "train", with_edges([("a.jpg", "a\x07b", 20)]), names=["a\x07b"])
    with pytest.raises(DataError, match=r"class 'a\\x07b' cannot be written"):
        converted(root, "voc")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]  # it is named before anything is written
    for to in ("coco", "csv", "yolo"):
        assert written_class_names(("a\x07b",), to) == ("a\x07b",)


def test_the_command_that_is_reported_keeps_every_class_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("- dash", "=SUM(1)", 'a, "b"', "größe <x> & y", "it's; 1", "null", "1", "[a]", "\\", '\\"', "$HOME `x`")
    root = tmp_path / "a b"
    write_coco(root / "in", "train", with_edges([("a.jpg", name, 20) for name in names]), names=names)
    converted(root / "in", "csv")
    config = compose_config("train", reported_overrides(capsys.readouterr().out))
    assert tuple(config.data.class_names) == names
    assert config.data.root == f"{root}/out"


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
    root = tmp_path / "in"
    images = with_edges([(name, "cat", 20) for name in kinds])
    put(root / "annotations/instances_train.json", coco_json(images, {"cat": 0}))
    (root / "train").mkdir()
    for number, (name, (content, *_)) in enumerate(kinds.items()):
        Image.new("RGB", (80, 40), (20 * number,) * 3).save(root / "train" / name, content)

    out = converted(root, to)

    records = {record.image_path.name: record for record in opened(to, out).annotations}
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
    whole = {record.image_id: record for record in opened("coco", made).annotations}
    tiles = opened("voc", out, class_names=CLASSES)
    assert len(tiles) == len(whole) * 2 * 3
    assert sorted(path.name for path in made.parent.iterdir()) == ["in", "out"]
    for index, tile in enumerate(tiles.annotations):
        image_id, left, top = tile.image_id.rsplit("_", 2)
        source = whole[image_id]
        assert tile.size_px == (80, 80)
        cut = read_image(source.image_path)[int(top) : int(top) + 80, int(left) : int(left) + 80]
        difference = tiles[index][0].permute(1, 2, 0).numpy().astype(int) - cut
        assert np.abs(difference).mean() < 12  # noise, saved as JPEG again
        inside = source.boxes_xyxy_px - np.array([left, top] * 2, np.float32)
        visible = np.prod(np.clip(inside, 0, 80)[:, 2:] - np.clip(inside, 0, 80)[:, :2], axis=1)
        kept = visible >= 0.3 * np.prod(inside[:, 2:] - inside[:, :2], axis=1)
        np.testing.assert_allclose(tile.boxes_xyxy_px, np.clip(inside[kept], 0, 80), atol=1e-3)
