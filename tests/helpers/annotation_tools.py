"""Write a small data set as annotation tools do, in every format and form that is read."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import pytest
from PIL import Image

from ssd_lightning.data.annotation_checks import BOX_KEYS, Problem
from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.formats import COCO, CSV, CVAT, VIA, VOC, YOLO, LabelMe, LabelStudio
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.data.split_annotations import AnnotationFormat, Annotations

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
Box = tuple[float, float, float, float]


class Thing(NamedTuple):
    name: str
    box: Box
    difficult: bool = False


@dataclass(frozen=True)
class Spec:
    """An image and its objects; the name may have the separators of another system."""

    name: str
    size_px: tuple[int, int]
    things: tuple[Thing, ...] = ()

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0]


A = Spec("a.jpg", (100, 200), (Thing("dog", (10, 20, 110, 80)), Thing("cat", (0, 5, 40, 45))))
EMPTY = Spec("b.png", (60, 50))
IMAGES = (
    Spec("a.jpg", (100, 200), (Thing("dog", (10, 20, 100, 80)), Thing("cat", (0, 0, 29.5, 40.25)))),
    Spec("b.jpg", (80, 120), (Thing("cat", (5, 6, 50, 70), difficult=True), Thing("cat", (3, 4, 120, 80)))),
    Spec("c.png", (60, 60)),
    Spec("d.v2.jpg", (50, 90), (Thing("dog", (1, 1, 89, 49)),)),
)


def put(path: Path, text: str) -> Path:
    """Write a text file, which may be named with the separators of another system."""
    path = Path(str(path).replace("\\", "/"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def paint(folder: Path, images: Sequence[Spec]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        path = folder / image.name.replace("\\", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", image.size_px[::-1], "teal").save(path)


def put_each(folder: Path, images: Sequence[Spec], suffix: str, text_of: Callable[[Spec], str]) -> Path:
    """Write a file for each image, and return the first."""
    paths = [put(folder / f"{image.stem}{suffix}", text_of(image)) for image in images]
    return paths[0]


def voc_xml(image: Spec, offset: int = 1) -> str:
    objects = ""
    for name, box, difficult in image.things:
        corners = "".join(f"<{tag}>{edge + offset}</{tag}>" for tag, edge in zip(BOX_KEYS["xyxy"], box, strict=True))
        flag = "<difficult>1</difficult>" * difficult
        objects += f"<object><name>{name}</name>{flag}<bndbox>{corners}</bndbox></object>"
    height, width = image.size_px
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"<annotation><filename>{escape(image.name)}</filename>{size}{objects}</annotation>"


def make(root: Path, *places: str) -> None:
    """Write images, VOC's XML and YOLO's labels, each of the usual content; `{a,b}` in a place stands for both."""
    for place in places:
        before, brace, after = place.partition("{")
        path = root / place
        image = replace(A, name=f"{path.stem}.jpg")
        if brace:
            choices, _, after = after.partition("}")
            make(root, *(f"{before}{choice}{after}" for choice in choices.split(",")))
        elif path.suffix == ".xml":
            put(path, voc_xml(image))
        elif path.suffix == ".txt":
            put(path, yolo_text(image))
        else:
            paint(path.parent, [replace(image, name=path.name)])


def write_voc(root: Path, split: str, images: Sequence[Spec]) -> Path:
    paint(root / "JPEGImages", images)
    put(root / f"ImageSets/Main/{split}.txt", "\n".join(image.stem for image in images))
    return put_each(root / "Annotations", images, ".xml", voc_xml)


def write_labelimg(root: Path, split: str, images: Sequence[Spec]) -> Path:
    paint(root / split, images)
    return put_each(root / split, images, ".xml", voc_xml)


def coco_json(images: Sequence[Spec], ids: Mapping[str, int]) -> str:
    """Give the annotations, with the ids of the classes."""
    listed = [
        {"id": 1000 - i, "file_name": one.name, "height": one.size_px[0], "width": one.size_px[1]}
        for i, one in enumerate(images)
    ]
    annotations = [
        {
            "id": 10 * i + j,
            "image_id": 1000 - i,
            "category_id": ids.get(name, 99),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "iscrowd": int(difficult),
            "segmentation": [[1, 2, 3, 4]],
        }
        for i, image in enumerate(images)
        for j, (name, (x1, y1, x2, y2), difficult) in enumerate(image.things)
    ]
    categories = [{"id": number, "name": name} for name, number in reversed(ids.items())]
    return json.dumps({"images": listed, "annotations": annotations, "categories": categories})


def write_coco(
    root: Path,
    split: str,
    images: Sequence[Spec],
    place: str = "annotations/instances_{}.json",
    names: Sequence[str] = ("cat", "dog"),
) -> Path:
    paint(root / split, images)
    return put(root / place.format(split), coco_json(images, {name: 17 + number for number, name in enumerate(names)}))


write_roboflow = partial(write_coco, place="{}/_annotations.coco.json")


def yolo_text(image: Spec, names: Sequence[str] = ("cat", "dog")) -> str:
    height, width = image.size_px
    return "".join(
        f"{names.index(name) if name in names else 7} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} "
        f"{(x2 - x1) / width} {(y2 - y1) / height}\n"
        for name, (x1, y1, x2, y2), _ in image.things
    )


def write_yolo(root: Path, split: str, images: Sequence[Spec], place: str = "images/{split}") -> Path:
    paint(root / "images" / split, images)
    lines = "".join(f"{other}: {place.format(split=other)}\n" for other in ("train", "test"))
    put(root / "data.yaml", f"path: /nowhere/on/this/machine\n{lines}names:\n  0: cat\n  1: dog\n")
    return put_each(root / f"labels/{split}", images, ".txt", yolo_text)


def write_yolo_list(root: Path, split: str, images: Sequence[Spec]) -> Path:
    put(root / f"{split}.txt", "".join(f"./images/{split}/{image.name}\n" for image in images))
    return write_yolo(root, split, images, place="{split}.txt")


def write_yolo_flat(root: Path, split: str, images: Sequence[Spec]) -> Path:
    """Labels next to their images, and no settings."""
    paint(root / split, images)
    return put_each(root / split, images, ".txt", yolo_text)


def write_darknet(root: Path, split: str, images: Sequence[Spec]) -> Path:
    """As CVAT exports it."""
    write_yolo_flat(root, "obj_train_data", images)
    put(root / "obj.names", "cat\ndog\n")
    put(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    put(root / "train.txt", "".join(f"data/obj_train_data/{image.name}\n" for image in images))
    return root / f"obj_train_data/{images[0].stem}.txt"


def write_label_studio_yolo(root: Path, split: str, images: Sequence[Spec]) -> Path:
    paint(root / "images", images)
    put(root / "classes.txt", "cat\ndog\n")
    put(root / "notes.json", json.dumps({"categories": [{"id": 0, "name": "cat"}], "info": {"year": 2024}}))
    return put_each(root / "labels", images, ".txt", yolo_text)


def write_rows(path: Path, *rows: Sequence[Any]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return path


def rows_of(
    images: Sequence[Spec],
    width: int,
    of_thing: Callable[[Spec, Thing], list[Any]],
    of_image: Callable[[Spec], list[Any]] = lambda image: [image.name],
) -> list[list[Any]]:
    """Give a row for each object; that of an image without objects has empty fields, as many as `width`."""
    return [
        [*of_image(image), *fields]
        for image in images
        for fields in [of_thing(image, thing) for thing in image.things] or [[""] * width]
    ]


def write_csv(root: Path, split: str, images: Sequence[Spec]) -> Path:
    paint(root / "images", images)
    rows = rows_of(images, 6, lambda _, thing: [thing.name, int(thing.difficult), *thing.box[::2], *thing.box[1::2]])
    header = ["filename", "class", "difficult", "xmin", "xmax", "ymin", "ymax"]
    return write_rows(root / f"{split}.csv", header, *rows)


def write_openimages(root: Path, split: str, images: Sequence[Spec]) -> Path:
    paint(root / split, images)
    codes = {"cat": "/m/01yrx", "dog": "/m/0bt9lr"}
    put(root / "class-descriptions.csv", "/m/01yrx,cat\n/m/0bt9lr,dog\n/m/04rky,Mammal\n")

    def row_of(image: Spec, thing: Thing) -> list[Any]:
        (height, width), (x1, y1, x2, y2) = image.size_px, thing.box
        fractions = [x1 / width, x2 / width, y1 / height, y2 / height]
        return ["xclick", codes.get(thing.name, thing.name), *fractions, -1, 1 if thing.difficult else -1]

    header = ["ImageID", "Source", "LabelName", "XMin", "XMax", "YMin", "YMax", "IsOccluded", "IsGroupOf"]
    rows = rows_of(images, 8, row_of, lambda image: [image.stem])
    return write_rows(root / f"{split}-annotations-bbox.csv", header, *rows)


def write_bananas(root: Path, split: str, images: Sequence[Spec]) -> Path:
    paint(root / split / "images", images)
    rows = rows_of(images, 5, lambda _, thing: [thing.name, *thing.box])
    return write_rows(root / split / "label.csv", ["img_name", "label", "xmin", "ymin", "xmax", "ymax"], *rows)


def write_retinanet(root: Path, split: str, images: Sequence[Spec]) -> Path:
    """Without a header."""
    paint(root, images)
    return write_rows(root / f"{split}.csv", *rows_of(images, 5, lambda _, thing: [*thing.box, thing.name]))


def write_tensorflow(root: Path, split: str, images: Sequence[Spec]) -> Path:
    paint(root / split, images)
    rows = rows_of(
        images, 5, lambda _, thing: [thing.name, *thing.box], lambda image: [image.name, *image.size_px[::-1]]
    )
    header = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    return write_rows(root / f"{split}_labels.csv", header, *rows)


def write_labelme(root: Path, split: str, images: Sequence[Spec]) -> Path:
    paint(root / split, images)
    for image in images:
        shapes = [
            {"label": name, "points": [[x2, y1], [x1, y2]], "group_id": group, "shape_type": "rectangle", "flags": {}}
            for group, (name, (x1, y1, x2, y2), _) in enumerate(image.things)
        ]
        height, width = image.size_px
        content = {"version": "5.3.1", "imageHeight": height, "imageWidth": width, "flags": {}, "shapes": shapes}
        content |= {"imagePath": image.name, "imageData": None}
        put(root / split / f"{image.stem}.json", json.dumps(content, indent=2))
    return root / split / f"{images[0].stem}.json"


def write_cvat(root: Path, split: str, images: Sequence[Spec], subsets: Sequence[str] = ()) -> Path:
    labels = "".join(f"<label><name>{name}</name><type>rectangle</type></label>" for name in ("cat", "dog"))
    listed = ""
    for number, image in enumerate(images):
        subset = subsets[number] if subsets else ""
        paint(root / split / "images" / subset, [image])
        boxes = "".join(
            f'<box label="{name}" source="manual" occluded="0" xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2:.2f}" '
            f'ybr="{y2:.2f}" z_order="0"></box>'
            for name, (x1, y1, x2, y2), _ in image.things
        )
        (height, width), of_subset = image.size_px, f'subset="{subset}"' if subset else ""
        attributes = f'name={quoteattr(image.name)} {of_subset} width="{width}" height="{height}"'
        listed += f'<image id="{number}" {attributes}>{boxes}</image>'
    xml = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    return put(root / split / "annotations.xml", f"{xml}{meta}{listed}</annotations>")


def percents(image: Spec, box: Box) -> dict[str, float]:
    (height, width), (x1, y1, x2, y2) = image.size_px, box
    x, y = 100 * x1 / width, 100 * y1 / height
    return {"x": x, "y": y, "width": 100 * (x2 - x1) / width, "height": 100 * (y2 - y1) / height, "rotation": 0}


def original(image: Spec) -> dict[str, int]:
    return {"original_width": image.size_px[1], "original_height": image.size_px[0]}


def region(image: Spec, value: Mapping[str, Any], kind: str = "rectanglelabels", **more: Any) -> dict[str, Any]:
    link = {"from_name": "label", "to_name": "image", "type": kind, "image_rotation": 0}
    return {"value": value, **link, **original(image), **more}


def write_label_studio(root: Path, split: str, images: Sequence[Spec]) -> Path:
    paint(root / "images", images)
    tasks = []
    for number, image in enumerate(images):
        results = [
            region(image, percents(image, thing.box) | {"rectanglelabels": [thing.name]}, id=f"r{item}")
            for item, thing in enumerate(image.things)
        ]
        annotation = {"id": number, "was_cancelled": False, "result": results}
        link = f"/data/upload/3/8f2b1c0d-{quote(image.name)}"
        tasks.append({"id": number, "annotations": [annotation], "predictions": [], "data": {"image": link}})
    return put(root / f"{split}.json", json.dumps(tasks))


def write_label_studio_min(root: Path, split: str, images: Sequence[Spec]) -> Path:
    paint(root, images)
    tasks: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        boxes = [
            original(image) | percents(image, thing.box) | {"rectanglelabels": [thing.name]} for thing in image.things
        ]
        task = {"image": f"/data/local-files/?d=photos%5Cdeep/{quote(image.name)}", "id": number, "annotator": 1}
        tasks.append(task | {"annotation_id": number} | ({"label": boxes} if boxes else {}))
    return put(root / f"{split}.json", json.dumps(tasks))


def via_regions(image: Spec) -> list[dict[str, Any]]:
    return [
        {
            "shape_attributes": {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1},
            "region_attributes": {"class": name},
        }
        for name, (x1, y1, x2, y2), _ in image.things
    ]


def write_via(root: Path, split: str, images: Sequence[Spec]) -> Path:
    paint(root / split, images)
    entries = {
        f"{one.name}12": {"filename": one.name, "size": 12, "regions": via_regions(one), "file_attributes": {}}
        for one in images
    }
    return put(root / split / "via_region_data.json", json.dumps(entries))


def write_via_project(root: Path, split: str, images: Sequence[Spec]) -> Path:
    path = write_via(root, split, images)
    path = path.rename(path.with_name("via_project.json"))
    content = {"_via_settings": {"ui": {}}, "_via_img_metadata": json.loads(path.read_text()), "_via_attributes": {}}
    return put(path, json.dumps(content))


def write_via_csv(root: Path, split: str, images: Sequence[Spec]) -> Path:
    paint(root, images)
    rows: list[list[Any]] = [["filename", "file_size", "region_shape_attributes", "region_attributes"]]
    for image in images:
        for of_region in via_regions(image) or [{"shape_attributes": {}, "region_attributes": {}}]:
            rows.append([image.name, 1234, *map(json.dumps, of_region.values())])
    return write_rows(root / f"{split}.csv", *rows)


@dataclass(frozen=True)
class Case:
    """A form of a format: `write(root, split, images)` gives an annotation file, of the first image if each has one."""

    format: AnnotationFormat
    write: Callable[..., Path]
    split: str = "train"
    has_difficult: bool = False

    @property
    def has_file_of_image(self) -> bool:
        return isinstance(self.format, VOC | LabelMe | YOLO)


CASES = {
    "voc": Case(VOC(), write_voc, has_difficult=True),
    "labelimg": Case(VOC(), write_labelimg, has_difficult=True),
    "coco": Case(COCO(), write_coco, has_difficult=True),
    "yolo": Case(YOLO(), write_yolo),
    "yolo list": Case(YOLO(), write_yolo_list),
    "darknet": Case(YOLO(), write_darknet),
    "label studio yolo": Case(YOLO(), write_label_studio_yolo, "."),
    "csv": Case(CSV(), write_csv, has_difficult=True),
    "openimages": Case(CSV(class_descriptions="class-descriptions.csv"), write_openimages, has_difficult=True),
    "bananas": Case(CSV(), write_bananas),
    "retinanet": Case(CSV(), write_retinanet),
    "tensorflow": Case(CSV(), write_tensorflow),
    "labelme": Case(LabelMe(), write_labelme),
    "cvat": Case(CVAT(), write_cvat),
    "label studio": Case(LabelStudio(), write_label_studio),
    "label studio min": Case(LabelStudio(), write_label_studio_min),
    "via": Case(VIA(), write_via),
    "via project": Case(VIA(), write_via_project),
    "via csv": Case(VIA(), write_via_csv),
}
with_each_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def with_cases(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [CASES[name] for name in names], ids=names)


def open_case(case: Case, root: Path, *, on_error: Any = "raise", **settings: Any) -> DetectionDataset:
    opener = DatasetOpener(format=case.format, on_error=on_error)
    return opener(splits=[{"root": str(root), "split": settings.pop("split", case.split)}], **settings)


def objects_of(found: Annotations | DetectionDataset) -> dict[str, list[tuple[str, list[float]]]]:
    """Image file -> (class, box) of its objects."""
    is_read = isinstance(found, Annotations)
    names, images = (found.names, AnnotationTable(found.columns)) if is_read else (found.class_names, found.annotations)
    return {
        image.image_path.name: [
            (names[label - 1], box) for label, box in zip(image.labels, image.boxes_xyxy_px.tolist(), strict=True)
        ]
        for image in images
    }


def expected(*images: Spec) -> dict[str, list[Any]]:
    return {
        one.name: [(thing.name, pytest.approx(list(thing.box), abs=1e-4)) for thing in one.things] for one in images
    }


def check_messages(problems: Iterable[Problem], said: Mapping[str, str]) -> None:
    """Check that there is one problem for each beginning in `said`, in one line that contains the other part."""
    messages = list(map(str, problems))
    assert len(messages) == len(said)
    for start, text in said.items():
        (message,) = (one for one in messages if one.startswith(start))
        assert text in message
        assert "\n" not in message
