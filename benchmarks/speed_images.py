"""From JPEG files to samples, and from images to detections, compared with torchvision."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from results import Comparison
from speed_training import torchvision_ssd300
from torch import Tensor, nn
from torchvision import io, tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2

from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.data.augmentation import SSDAugmentation
from ssd_lightning.data.images import read_image
from ssd_lightning.data.toy_scene import draw_toy_image
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.models import SSD, PostProcess
from ssd_lightning.models.weights import export_weights
from ssd_lightning.ops.normalization import TORCHVISION_SSD
from ssd_lightning.timing import time_pairs

TORCHVISION_SSD300 = ("model=torchvision_ssd300", "backbone=vgg16", "+head.prior_probability=0.01")
SIZE_PX = (375, 500)
"""(height, width) of most images of VOC."""
NOISE, JPEG_QUALITY = 9.0, 95
"""Chosen for files as large as VOC's, 80 to 110 KB, since decoding time depends on the number of bytes."""
MEAN = (123, 117, 104)


def compare_data(*, images: int = 64, image_size: int = 300, folder: Path, pairs: int = 5) -> Comparison:
    """Compare decoding and the paper's augmentation on one core with torchvision's transforms.

    Args:
        images: number of generated images.
        image_size: side of the samples in pixels.
        folder: folder for the images.
        pairs: number of runs over all images for each side.
    """
    records = write_images(folder, images)
    augment, seeds = SSDAugmentation(image_size=image_size, fill=MEAN), iter(range(10**9))
    sides = np.array(SIZE_PX[::-1] * 2, dtype=np.float32)
    recipe = v2.Compose(  # of torchvision's reference for SSD
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill={tv_tensors.Image: MEAN, "others": 0}),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(),
            v2.SanitizeBoundingBoxes(),
            v2.Resize((image_size, image_size)),
        ]
    )

    def ours() -> None:
        for record in records:
            augment(read_image(record.image_path, record.size_px), record.boxes_xyxy_px / sides, next(seeds))

    def theirs() -> None:
        for record in records:
            image = io.decode_jpeg(io.read_file(str(record.image_path)), mode=io.ImageReadMode.RGB)
            boxes = tv_tensors.BoundingBoxes(
                torch.from_numpy(record.boxes_xyxy_px), format="XYXY", canvas_size=record.size_px
            )
            recipe(tv_tensors.Image(image), {"boxes": boxes, "labels": torch.from_numpy(record.labels)})

    with one_core():
        seconds = time_pairs(ours, theirs, pairs=pairs, device=torch.device("cpu"))
    rates = [tuple(images / each for each in side) for side in seconds]
    size = np.mean([record.image_path.stat().st_size for record in records]) / 1000
    return Comparison(
        part="data",
        setting=f"paper augmentation, {SIZE_PX[1]} x {SIZE_PX[0]} JPEG to {image_size} x {image_size}, one core",
        peer="torchvision transforms.v2",
        ours=rates[0],
        theirs=rates[1],
        unit="images/s",
        note=f"{images} images of {size:.0f} kB on average",
    )


def write_images(folder: Path, count: int) -> list[ImageAnnotation]:
    """Write toy images with camera noise as JPEGs."""
    records = []
    for index in range(count):
        image, objects = draw_toy_image(seed=0, split="train", index=index, size_px=SIZE_PX)
        path = folder / f"{index:04}.jpg"
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


def compare_predict(*, net: SSD, device: torch.device, batch_size: int, pairs: int = 5) -> Comparison:
    """Compare detection in uint8 images of 500 x 375, including conversion, resizing and post-processing.

    Args:
        net: an untrained network of `TORCHVISION_SSD300`; it gets the peer's normalisation, and its weights are scaled.
        device: device of the networks.
        batch_size: number of images per call.
        pairs: number of timings of each side.
    """
    blobs = np.random.default_rng(0).integers(0, 256, (batch_size, 12, 16, 3), dtype=np.uint8)
    images = [cv2.resize(image, SIZE_PX[::-1], interpolation=cv2.INTER_CUBIC) for image in blobs]
    detector, peer = same_detectors(net, device, images[0])
    results: dict[str, list] = {}

    def ours() -> None:
        results["ours"] = detector(images)

    def theirs() -> None:
        with torch.inference_mode():
            # The peer takes floats of 0..1. They are transferred as bytes, a quarter of the size.
            tensors = [torch.from_numpy(image).to(device).permute(2, 0, 1) / 255 for image in images]
            results["theirs"] = peer(tensors)

    ours_s, theirs_s = time_pairs(ours, theirs, pairs=pairs, device=device)
    same = [share_found(*sides) for sides in zip(results["ours"], results["theirs"], strict=True)]
    return Comparison(
        part="predict",
        setting=f"SSD300-VGG16, batch {batch_size}, {SIZE_PX[1]} x {SIZE_PX[0]} pixels, float32, {device.type}",
        peer="torchvision SSD",
        ours=ours_s,
        theirs=theirs_s,
        note=f"{sum(same) / len(same):.0%} of the peer's boxes are found; it resizes floats, we resize bytes",
    )


def same_detectors(net: SSD, device: torch.device, image: np.ndarray) -> tuple[Detector, nn.Module]:
    """Build both sides with the same weights, scaled by one image to detect about as much as trained ones."""
    net.use_normalization(TORCHVISION_SSD)
    postprocess = PostProcess(clip_first=True)  # as in torchvision, whose thresholds are the same
    detector = Detector(net, class_names=list(map(str, range(net.num_classes))), postprocess=postprocess)
    # Offsets and logits of deviation 1 let a few hundred scores of an image pass the threshold.
    with torch.no_grad():
        output = net(torch.from_numpy(cv2.resize(image, (300, 300))).permute(2, 0, 1)[None])
        for convolutions, values in ((net.head.box, output.box_offsets), (net.head.cls, output.class_logits)):
            for convolution in convolutions:
                convolution.weight /= values[..., 1:].std()
    peer = torchvision_ssd300(net.num_classes).eval()
    peer.load_state_dict(export_weights(net, "torchvision"))
    net.to(device)
    return detector, peer.to(device)


def share_found(ours: ImageDetections, theirs: dict[str, Tensor]) -> float:
    """Return the fraction of their boxes that match one of ours with the same class and an IoU above .9."""
    iou = box_iou(theirs["boxes"].cpu(), torch.from_numpy(ours.boxes_xyxy_px))
    same_class = theirs["labels"][:, None].cpu() == torch.from_numpy(ours.labels)
    return float(((iou > 0.9) & same_class).any(dim=1).float().mean()) if len(iou) else 1.0
