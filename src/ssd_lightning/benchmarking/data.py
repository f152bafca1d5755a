"""From JPEG files to samples on one core, compared with decoding alone and with torchvision's transforms."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision import io, tv_tensors
from torchvision.transforms import v2

from ssd_lightning.data.augmentation import SSDAugmentation
from ssd_lightning.data.dataset import ImageAnnotation
from ssd_lightning.data.images import read_image
from ssd_lightning.data.toy_scene import draw_toy_image
from ssd_lightning.timing import Comparison, time_pairs

SIZE_PX = (375, 500)
"""(height, width) of most images of VOC."""
NOISE, JPEG_QUALITY = 9.0, 95
"""Chosen for files as large as VOC's, 80 to 110 KB, since decoding time depends on the number of bytes."""
MEAN = (123, 117, 104)


def compare_data(*, pairs: int, images: int = 64, image_size: int = 300, folder: Path) -> list[Comparison]:
    """Compare the paper's augmentation, including decoding, with decoding alone and with torchvision's transforms.

    Args:
        pairs: number of runs over all images for each side.
        images: number of generated images.
        image_size: side of the samples in pixels.
        folder: folder for the images.
    """
    records = write_images(folder, images)
    files = [record.image_path.read_bytes() for record in records]
    setting = f"{SIZE_PX[1]} x {SIZE_PX[0]} JPEG to {image_size} x {image_size}, one core"
    note = f"{images} images of {np.mean([len(data) for data in files]) / 1000:.0f} kB on the mean"
    decode = partial(_for_each, files, lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    read = partial(_for_each, records, lambda record: read_image(record.image_path, record.size_px))
    augment = paper_augmentation(records, image_size)
    compare = partial(_compare, pairs=pairs, images=images)
    with one_core():
        torchvision, reader = _torchvision_recipe(records, image_size)
        return [
            compare("paper augmentation", setting, "decoding alone with cv2", augment, decode, bar=0.5, note=note),
            compare(
                "paper augmentation",
                setting,
                "torchvision transforms.v2",
                augment,
                torchvision,
                note=f"{note}; torchvision's side decodes with {reader}",
            ),
            compare(
                "reading", f"{setting.split(' to ')[0]}, one core", "decoding alone with cv2", read, decode, note=note
            ),
        ]


def write_images(folder: Path, count: int) -> list[ImageAnnotation]:
    """Generate toy images with camera noise and write them as JPEGs; existing ones are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(count):
        image, objects = draw_toy_image(seed=0, split="train", index=index, size_px=SIZE_PX)
        path = folder / f"{index:04}.jpg"
        if not path.is_file():
            noise = np.random.default_rng(index).normal(0, NOISE, image.shape)
            Image.fromarray((image + noise).clip(0, 255).astype(np.uint8)).save(path, quality=JPEG_QUALITY)
        records.append(
            ImageAnnotation(
                image_id=path.stem,
                image_path=path,
                size_px=SIZE_PX,
                boxes_xyxy_px=np.array([each.box_xyxy_px for each in objects], dtype=np.float32).reshape(-1, 4),
                labels=np.ones(len(objects), dtype=np.int64),
                difficult=np.zeros(len(objects), dtype=bool),
            )
        )
    return records


@contextmanager
def one_core() -> Iterator[None]:
    """Prevent OpenCV and torch from starting threads."""
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def _compare(
    part: str,
    setting: str,
    peer: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    pairs: int,
    images: int,
    note: str,
    bar: float | None = None,
) -> Comparison:
    seconds = time_pairs(ours, theirs, pairs=pairs, device=torch.device("cpu"))
    rates = [tuple(images / each for each in side) for side in seconds]
    return Comparison(part, setting, peer, ours=rates[0], theirs=rates[1], unit="images/s", bar=bar, note=note)


def _for_each(items: Sequence, work: Callable[..., object]) -> None:
    for item in items:
        work(item)


def _nothing() -> None:
    pass


def paper_augmentation(records: Sequence[ImageAnnotation], image_size: int) -> Callable[[], None]:
    """Return a function that reads and augments all images once, with new random parameters in each call."""
    augment = SSDAugmentation(image_size=image_size, fill=MEAN)
    sides = np.array(SIZE_PX[::-1] * 2, dtype=np.float32)
    seeds = iter(range(10**9))

    def one(record: ImageAnnotation) -> None:
        augment(read_image(record.image_path, record.size_px), record.boxes_xyxy_px / sides, next(seeds))

    return partial(_for_each, records, one)


def _torchvision_recipe(records: Sequence[ImageAnnotation], image_size: int) -> tuple[Callable[[], None], str]:
    """Build the augmentation of torchvision's SSD reference with its faster decoder, and return the decoder's name."""
    recipe = v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill={tv_tensors.Image: MEAN, "others": 0}),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(),
            v2.SanitizeBoundingBoxes(),
            v2.Resize((image_size, image_size)),
        ]
    )

    def one(decode: Callable[[Path], torch.Tensor], record: ImageAnnotation) -> None:
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(record.boxes_xyxy_px), format="XYXY", canvas_size=record.size_px
        )
        recipe(tv_tensors.Image(decode(record.image_path)), {"boxes": boxes, "labels": torch.from_numpy(record.labels)})

    seconds = {name: _least_seconds(decode, records) for name, decode in _DECODERS.items()}
    quickest = min(seconds, key=lambda name: seconds[name])
    return partial(_for_each, records, partial(one, _DECODERS[quickest])), quickest


def _least_seconds(decode: Callable[[Path], torch.Tensor], records: Sequence[ImageAnnotation]) -> float:
    def all_of_them() -> None:
        _for_each(records, lambda record: decode(record.image_path))

    return min(time_pairs(all_of_them, _nothing, pairs=3, device=torch.device("cpu"))[0])


def _decode_by_pillow(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        return v2.functional.pil_to_tensor(image.convert("RGB"))


def _decode_by_torchvision(path: Path) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated since torchvision 0.29
        return io.decode_jpeg(io.read_file(str(path)), mode=io.ImageReadMode.RGB)


_DECODERS = {"Pillow": _decode_by_pillow, "torchvision.io": _decode_by_torchvision}
