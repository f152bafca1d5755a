"""Time and memory of large annotations: how long a first and a later opening take, and what a process holds.

    python benchmarks/annotations.py --out outputs/annotations
    python benchmarks/annotations.py --out outputs/annotations --only coco xml

It makes the files below OUT once: a COCO file of the size of train2017 with outlines, a CSV file of the size of
OpenImages V6, and VOC files as many as in 07+12. Boxes are random; images are empty files, since annotations that
state their sizes are read without opening one. Each opening is a process of its own. Every figure is printed as a row
and written to OUT/results.json.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

COCO_CLASSES = 80
SIDE_PX = (640, 480)


def main(command_line: Sequence[str] | None = None) -> None:
    """Make the files, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/annotations"))
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--tiny", action="store_true", help="a thousandth of the size")
    parser.add_argument("--measure", choices=list(SETS), help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(command_line)
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.out, arguments.workers)))
        return
    results: dict[str, Any] = {}
    for name in arguments.only:
        root = arguments.out / name
        if not (root / "complete").exists():
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir(parents=True)
            SETS[name](root, 1000 if arguments.tiny else 1)
            (root / "complete").touch()
        shutil.rmtree(arguments.out / "cache", ignore_errors=True)
        own = ["--tiny"] if arguments.tiny else []
        first, later = (opened(name, arguments.out, *own) for _ in range(2))
        results[name] = {
            "images": later["images"],
            "boxes": later["boxes"],
            "first_s": first["seconds"],
            "later_s": later["seconds"],
            "first_peak_mb": first["peak_mb"],
            "resident_mb": later["resident_mb"],
            "private_mb": later["private_mb"],
        }
        if name == "coco":
            results[name]["worker_mb"] = opened(name, arguments.out, *own, "--workers", "8")["worker_mb"]
        print(f"{name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in results[name].items()), flush=True)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=2))


def opened(name: str, out: Path, *more: str) -> dict[str, float]:
    """Open a set in a process of its own."""
    command = [sys.executable, __file__, "--out", str(out), "--measure", name, *more]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])  # noqa: S603


def measure(name: str, out: Path, workers: int | None) -> dict[str, float]:
    """Open a set, and measure the time, and the memory above that of the imports."""
    import time

    from ssd_lightning.data.formats import COCO, CSV, VOC
    from ssd_lightning.data.reading import DatasetOpener

    formats = {"coco": COCO(), "openimages": CSV(), "xml": VOC()}
    opener = DatasetOpener(format=formats[name], cache_folder=out / "cache", on_error="raise")
    before = memory_mb("self")
    start = time.perf_counter()
    dataset = opener(splits=[{"root": str(out / name), "split": "train"}], part="train", val_fraction=0.02)
    seconds = time.perf_counter() - start
    after = memory_mb("self")
    found = {
        "images": len(dataset),
        "boxes": int(dataset.annotations.counts.sum()),
        "seconds": seconds,
        "resident_mb": after["VmRSS"] - before["VmRSS"],
        "private_mb": after["RssAnon"] - before["RssAnon"],
        "peak_mb": after["VmHWM"] - before["VmRSS"],
    }
    return found if workers is None else {"worker_mb": worker_mb(dataset, workers)}


def worker_mb(dataset: Any, workers: int) -> float:
    """Return the private memory that a worker gains when it has read the annotations of an epoch, in MB; the worst."""
    gained = []
    for worker in range(workers):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            before = memory_mb("self")["RssAnon"]
            for index in range(worker, len(dataset), workers):
                dataset.annotations[index]
            os.write(writing, f"{memory_mb('self')['RssAnon'] - before}".encode())
            os._exit(0)
        os.waitpid(child, 0)
        gained.append(float(os.read(reading, 100)))
    return max(gained)


def memory_mb(process: str) -> dict[str, float]:
    """Read the memory of a process in MB: resident, its private part, and the peak."""
    lines = (line.split() for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) / 1024 for line in lines if line[-1] == "kB"}


def make_coco(root: Path, divisor: int) -> None:
    """Write a COCO file of 118,000 images and 827,000 objects with outlines of 8 to 60 points."""
    rng = np.random.default_rng(0)
    images, objects = 118_000 // divisor, 827_000 // divisor
    (root / "train").mkdir()
    for index in range(images):
        (root / "train" / f"{index:012d}.jpg").touch()
    owners, boxes = np.sort(rng.integers(0, images, objects)), random_boxes(rng, objects).round(2)
    points = rng.integers(8, 60, objects)
    with (root / "train.json").open("w") as file:
        entries = (
            json.dumps({"id": i, "file_name": f"{i:012d}.jpg", "width": SIDE_PX[0], "height": SIDE_PX[1]})
            for i in range(images)
        )
        file.write('{"images": [' + ", ".join(entries) + '], "annotations": [')
        for number in range(objects):
            x1, y1, x2, y2 = boxes[number].tolist()
            outline = np.round(rng.random(2 * points[number]) * 400, 2).tolist()
            entry = {
                "id": number,
                "image_id": int(owners[number]),
                "category_id": number % COCO_CLASSES + 1,
                "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                "area": round((x2 - x1) * (y2 - y1), 2),
                "iscrowd": 0,
                "segmentation": [outline],
            }
            file.write((", " if number else "") + json.dumps(entry))
        categories = [{"id": i + 1, "name": f"class {i}"} for i in range(COCO_CLASSES)]
        file.write('], "categories": ' + json.dumps(categories) + "}")


def make_openimages(root: Path, divisor: int) -> None:
    """Write a CSV file of 1.7 million images and 14.6 million boxes, with the images' sizes."""
    rng = np.random.default_rng(0)
    images, objects = 1_700_000 // divisor, 14_600_000 // divisor
    (root / "train").mkdir()
    for index in range(images):
        (root / "train" / f"{index:016x}.jpg").touch()
    with (root / "train-annotations-bbox.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        header = "ImageID Source LabelName Confidence XMin XMax YMin YMax IsOccluded IsTruncated IsGroupOf IsDepiction"
        writer.writerow([*header.split(), "IsInside", "Width", "Height"])
        owners = np.sort(rng.integers(0, images, objects))
        for start in range(0, objects, 100_000):
            part = owners[start : start + 100_000].tolist()
            boxes = random_boxes(rng, len(part)) / (*SIDE_PX, *SIDE_PX)
            codes = rng.integers(0, 600, len(part)).tolist()
            writer.writerows(
                [f"{owner:016x}", "xclick", f"/m/{code:04x}", 1, *(f"{edge:.6f}" for edge in (x1, x2, y1, y2)),
                 0, 0, int(code % 17 == 0), 0, 0, *SIDE_PX]
                for owner, code, (x1, y1, x2, y2) in zip(part, codes, boxes.tolist(), strict=True)
            )  # fmt: skip


def make_xml(root: Path, divisor: int) -> None:
    """Write 16,551 VOC files with three objects each."""
    rng = np.random.default_rng(0)
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    names = [f"{index:06d}" for index in range(16_551 // divisor)]
    for name in names:
        (root / f"JPEGImages/{name}.jpg").touch()
        objects = "".join(
            f"<object><name>class {rng.integers(20)}</name><pose>Left</pose><truncated>0</truncated><difficult>0"
            f"</difficult><bndbox>{corners(box)}</bndbox></object>"
            for box in random_boxes(rng, 3)
        )
        size = f"<size><width>{SIDE_PX[0]}</width><height>{SIDE_PX[1]}</height><depth>3</depth></size>"
        text = f"<annotation><folder>VOC2007</folder><filename>{name}.jpg</filename>{size}{objects}</annotation>"
        (root / f"Annotations/{name}.xml").write_text(text)
    (root / "ImageSets/Main/train.txt").write_text("\n".join(names) + "\n")


def corners(box: np.ndarray) -> str:
    """Write a box with VOC's tags."""
    tags = ("xmin", "ymin", "xmax", "ymax")
    return "".join(f"<{tag}>{int(edge) + 1}</{tag}>" for tag, edge in zip(tags, box, strict=True))


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw boxes `[count, 4]`, xyxy in pixels of the images."""
    sides = np.array(SIDE_PX)
    low = rng.random((count, 2)) * (sides - 40)
    return np.concatenate([low, low + 8 + rng.random((count, 2)) * (sides - low - 8)], axis=1)


SETS: dict[str, Callable[[Path, int], None]] = {"coco": make_coco, "openimages": make_openimages, "xml": make_xml}


if __name__ == "__main__":
    main()
