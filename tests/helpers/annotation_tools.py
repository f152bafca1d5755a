"""Write a small data set as annotation tools do."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pytest
from PIL import Image

from ssd_lightning.data.annotations import AnnotationFormat, Annotations, AnnotationTable
from ssd_lightning.data.formats import CSV, CVAT, VIA, YOLO, LabelMe, LabelStudio

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Spec:
    name: str
    size_px: tuple[int, int]
    objects: tuple[tuple[str, Box], ...] = ()


A = Spec("a.jpg", (100, 200), (("dog", (10, 20, 110, 80)), ("cat", (0, 5, 40, 45))))
EMPTY = Spec("b.png", (60, 50))


def paint(folder: Path, images: Sequence[Spec]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        Image.new("RGB", image.size_px[::-1], "teal").save(folder / image.name)


def write_labelme(root: Path, images: Sequence[Spec], *, with_size: bool = True) -> Path:
    paint(root, images)
    for image in images:
        shapes = [
            {"label": name, "points": [[x2, y1], [x1, y2]], "group_id": group, "shape_type": "rectangle", "flags": {}}
            for group, (name, (x1, y1, x2, y2)) in enumerate(image.objects)
        ]
        height, width = image.size_px if with_size else (None, None)
        content: dict[str, Any] = {
            "version": "5.3.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": image.name,
            "imageData": None,
        }
        path = (root / image.name).with_suffix(".json")
        path.write_text(json.dumps(content | {"imageHeight": height, "imageWidth": width}, indent=2))
    return (root / images[0].name).with_suffix(".json")


def write_cvat(root: Path, images: Sequence[Spec], *, with_size: bool = True, subsets: Sequence[str] = ()) -> Path:
    labels = "".join(f"<label><name>{name}</name><type>rectangle</type></label>" for name in ("cat", "dog"))
    listed = ""
    for number, image in enumerate(images):
        subset = subsets[number] if subsets else ""
        paint(root / "images" / subset, [image])
        boxes = "".join(
            f'<box label="{name}" source="manual" occluded="0" xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2:.2f}" '
            f'ybr="{y2:.2f}" z_order="0"></box>'
            for name, (x1, y1, x2, y2) in image.objects
        )
        size = f' width="{image.size_px[1]}" height="{image.size_px[0]}"' if with_size else ""
        of_subset = f' subset="{subset}"' if subset else ""
        listed += f'<image id="{number}" name={quoteattr(image.name)}{of_subset}{size}>{boxes}</image>'
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    path = root / "annotations.xml"
    xml = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
    path.write_text(f"{xml}{meta}{listed}</annotations>", encoding="utf-8")
    return path


def percents(image: Spec, box: Box) -> dict[str, float]:
    (height, width), (x1, y1, x2, y2) = image.size_px, box
    x, y = 100 * x1 / width, 100 * y1 / height
    return {"x": x, "y": y, "width": 100 * (x2 - x1) / width, "height": 100 * (y2 - y1) / height, "rotation": 0}


def original(image: Spec, with_size: bool = True) -> dict[str, int]:
    return {"original_width": image.size_px[1], "original_height": image.size_px[0]} if with_size else {}


def region(image: Spec, value: Mapping[str, Any], kind: str = "rectanglelabels", **more: Any) -> dict[str, Any]:
    link = {"from_name": "label", "to_name": "image", "type": kind, "image_rotation": 0}
    return {"value": value, **link, **original(image), **more}


def write_label_studio(root: Path, images: Sequence[Spec], *, with_size: bool = True) -> Path:
    paint(root / "images", images)
    tasks = []
    for number, image in enumerate(images):
        results = [
            region(image, percents(image, box) | {"rectanglelabels": [name]}, id=f"r{item}")
            for item, (name, box) in enumerate(image.objects)
        ]
        if not with_size:
            results = [{k: v for k, v in result.items() if not k.startswith("original")} for result in results]
        annotation = {"id": number, "was_cancelled": False, "result": results}
        link = f"/data/upload/3/8f2b1c0d-{quote(image.name)}"
        tasks.append({"id": number, "annotations": [annotation], "predictions": [], "data": {"image": link}})
    path = root / "project-1-at-2024-05-01.json"
    path.write_text(json.dumps(tasks))
    return path


def write_label_studio_min(root: Path, images: Sequence[Spec], *, with_size: bool = True) -> Path:
    paint(root, images)
    tasks: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        boxes = [
            percents(image, box) | {"rectanglelabels": [name]} | original(image, with_size)
            for name, box in image.objects
        ]
        task = {"image": f"/data/local-files/?d=photos%5Cdeep/{quote(image.name)}", "id": number, "annotator": 1}
        tasks.append(task | {"annotation_id": number} | ({"label": boxes} if boxes else {}))
    path = root / "min.json"
    path.write_text(json.dumps(tasks))
    return path


def yolo_text(image: Spec) -> str:
    height, width = image.size_px
    return "".join(
        f"{('cat', 'dog').index(name)} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} "
        f"{(y2 - y1) / height}\n"
        for name, (x1, y1, x2, y2) in image.objects
    )


def write_darknet(root: Path, images: Sequence[Spec], *, with_size: bool = True) -> Path:
    """As CVAT exports it."""
    folder = root / "obj_train_data"
    paint(folder, images)
    for image in images:
        (folder / image.name).with_suffix(".txt").write_text(yolo_text(image))
    (root / "obj.names").write_text("cat\ndog\n")
    (root / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    lines = "".join(f"data/obj_train_data/{image.name}\n" for image in images)
    (root / "train.txt").write_text(lines, encoding="utf-8")
    return (folder / images[0].name).with_suffix(".txt")


def write_label_studio_yolo(root: Path, images: Sequence[Spec], *, with_size: bool = True) -> Path:
    paint(root / "images", images)
    (root / "labels").mkdir()
    for image in images:
        (root / "labels" / image.name).with_suffix(".txt").write_text(yolo_text(image))
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "notes.json").write_text(json.dumps({"categories": [{"id": 0, "name": "cat"}], "info": {"year": 2024}}))
    return (root / "labels" / images[0].name).with_suffix(".txt")


def write_rows(path: Path, rows: Sequence[Sequence[Any]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    return path


def write_retinanet(root: Path, images: Sequence[Spec], *, with_size: bool = True) -> Path:
    paint(root, images)
    rows = [[image.name, *box, name] for image in images for name, box in image.objects]
    return write_rows(root / "train.csv", rows + [[image.name, *[""] * 5] for image in images if not image.objects])


def write_tensorflow(root: Path, images: Sequence[Spec], *, with_size: bool = True, delimiter: str = ",") -> Path:
    paint(root / "train", images)
    size = ["width", "height"] if with_size else []
    rows: list[list[Any]] = [["filename", *size, "class", "xmin", "ymin", "xmax", "ymax"]]
    for image in images:
        of_image = [image.name, *(image.size_px[::-1] if with_size else ())]
        rows += [[*of_image, name, *box] for name, box in image.objects]
        rows += [] if image.objects else [[*of_image, *[""] * 5]]
    return write_rows(root / "train_labels.csv", rows, delimiter)


def write_semicolons(root: Path, images: Sequence[Spec], *, with_size: bool = True) -> Path:
    return write_tensorflow(root, images, with_size=with_size, delimiter=";")


def write_tabs(root: Path, images: Sequence[Spec], *, with_size: bool = True) -> Path:
    return write_tensorflow(root, images, with_size=with_size, delimiter="\t")


def via_regions(image: Spec) -> list[dict[str, Any]]:
    return [
        {
            "shape_attributes": {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1},
            "region_attributes": {"class": name},
        }
        for name, (x1, y1, x2, y2) in image.objects
    ]


def write_via(root: Path, images: Sequence[Spec], *, with_size: bool = True) -> Path:
    paint(root, images)
    entries = {
        f"{image.name}1234": {
            "filename": image.name,
            "size": 1234,
            "regions": via_regions(image),
            "file_attributes": {},
        }
        for image in images
    }
    path = root / "via_region_data.json"
    path.write_text(json.dumps(entries))
    return path


def write_via_project(root: Path, images: Sequence[Spec], *, with_size: bool = True) -> Path:
    path = write_via(root, images)
    settings = {"ui": {}, "core": {"buffer_size": 18}, "project": {"name": "mine"}}
    content = {"_via_settings": settings, "_via_img_metadata": json.loads(path.read_text()), "_via_attributes": {}}
    path.unlink()
    (root / "via_project.json").write_text(json.dumps(content))
    return root / "via_project.json"


def write_via_csv(root: Path, images: Sequence[Spec], *, with_size: bool = True) -> Path:
    paint(root, images)
    header = ["filename", "file_size", "file_attributes", "region_count", "region_id"]
    rows: list[list[Any]] = [[*header, "region_shape_attributes", "region_attributes"]]
    for image in images:
        regions = via_regions(image)
        for number, region_of in enumerate(regions or [{"shape_attributes": {}, "region_attributes": {}}]):
            values = [json.dumps(value) for value in region_of.values()]
            rows.append([image.name, 1234, "{}", len(regions), number, *values])
    return write_rows(root / "via_export_csv.csv", rows)


@dataclass(frozen=True)
class Case:
    format: AnnotationFormat
    split: str
    write: Callable[..., Path]


CASES = {
    "labelme": Case(LabelMe(), ".", write_labelme),
    "cvat": Case(CVAT(), ".", write_cvat),
    "label studio": Case(LabelStudio(), "project-1-at-2024-05-01", write_label_studio),
    "label studio min": Case(LabelStudio(), "min", write_label_studio_min),
    "darknet": Case(YOLO(), "train", write_darknet),
    "label studio yolo": Case(YOLO(), ".", write_label_studio_yolo),
    "via": Case(VIA(), "via_region_data", write_via),
    "via project": Case(VIA(), "via_project", write_via_project),
    "via csv": Case(VIA(), "via_export_csv", write_via_csv),
    "retinanet": Case(CSV(), "train", write_retinanet),
    "tensorflow": Case(CSV(), "train", write_tensorflow),
    "semicolons": Case(CSV(), "train", write_semicolons),
    "tabs": Case(CSV(), "train", write_tabs),
}


def objects_of(found: Annotations) -> dict[str, list[tuple[str, list[float]]]]:
    """Image file -> (class, box) of its objects."""
    return {
        image.image_path.name: [
            (found.names[label - 1], box) for label, box in zip(image.labels, image.boxes_xyxy_px.tolist(), strict=True)
        ]
        for image in AnnotationTable(found.columns)
    }


def expected(*images: Spec) -> dict[str, list[Any]]:
    return {image.name: [(name, pytest.approx(list(box), abs=1e-4)) for name, box in image.objects] for image in images}
