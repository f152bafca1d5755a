"""Open any data from Python: rows as a Hugging Face data set has them, with images in memory and boxes as x, y, w, h.

With the package `datasets`, `load_dataset(...)["train"]` takes the place of `made_up_rows()`, and
`.features["objects"]["category"].feature.names` that of `CLASS_NAMES`.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ssd_lightning.data.dataset import DetectionDataset

CLASS_NAMES = ["circle", "square"]


def made_up_rows() -> Iterator[dict[str, Any]]:
    """Yield eight rows with one object each."""
    for number in range(8):
        objects = {"bbox": [[10.0 + number, 20.0, 40.0, 30.0]], "category": [number % 2]}
        yield {"image_id": number, "image": Image.new("RGB", (160, 120), "teal"), "objects": objects}


def to_records(rows: Iterable[Mapping[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """Save the images of some rows, and yield a record for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        name = f"{row['image_id']}.png"
        row["image"].convert("RGB").save(folder / name)
        yield {
            "image": name,
            "boxes": [[x, y, x + width, y + height] for x, y, width, height in row["objects"]["bbox"]],
            "labels": [CLASS_NAMES[number] for number in row["objects"]["category"]],
        }


def main() -> None:
    """Open the made-up rows as a data set, and describe its first sample."""
    folder = Path("saved_images")
    records = to_records(made_up_rows(), folder)
    dataset = DetectionDataset.from_records(records, root=folder, class_names=CLASS_NAMES, on_error="skip")
    image, target = dataset[0]
    print(f"{len(dataset)} images of {', '.join(dataset.class_names)}")
    print(f"The first has the shape {tuple(image.shape)} and the boxes {target['boxes'].tolist()}")


if __name__ == "__main__":
    main()
