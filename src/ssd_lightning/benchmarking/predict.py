"""Detection from images to boxes, compared with torchvision's SSD300 with the same weights."""

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16
from torchvision.ops import box_iou

from ssd_lightning.benchmarking.data import SIZE_PX
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.models import SSD, PostProcess
from ssd_lightning.models.weights import export_weights
from ssd_lightning.ops.normalization import TORCHVISION_SSD
from ssd_lightning.timing import Comparison, time_pairs


def compare_predict(*, net: SSD, pairs: int, device: torch.device, batch_size: int) -> list[Comparison]:
    """Compare detection in uint8 images of 500 x 375, including conversion, resizing and post-processing.

    Args:
        net: an untrained network with the names and priors of torchvision's `ssd300_vgg16`, whose head predicts
            background; it gets the peer's normalisation, and its weights are scaled.
        pairs: number of timings of each side.
        device: device of the networks.
        batch_size: number of images per call.
    """
    images = random_images(batch_size)
    detector, peer = same_detectors(net, device, images)
    results: dict[str, list] = {}

    def ours() -> None:
        results["ours"] = detector(images)

    def theirs() -> None:
        with torch.inference_mode():
            # The peer takes floats of 0..1. They are transferred as bytes, a quarter of the size.
            tensors = [torch.from_numpy(image).to(device).permute(2, 0, 1) / 255 for image in images]
            results["theirs"] = peer(tensors)

    ours_s, theirs_s = time_pairs(ours, theirs, pairs=pairs, device=device)
    same = [_share_found(*sides) for sides in zip(results["ours"], results["theirs"], strict=True)]
    channels_last = next(detector.network.extractor.parameters()).is_contiguous(memory_format=torch.channels_last)
    bars = {("cpu", 1): 1.0, ("cuda", 64): 1.5}
    return [
        Comparison(
            part="predict",
            setting=f"SSD300-VGG16, batch {batch_size}, {SIZE_PX[1]} x {SIZE_PX[0]} pixels, float32, {device.type}",
            peer="torchvision SSD",
            ours=ours_s,
            theirs=theirs_s,
            bar=bars.get((device.type, batch_size)),
            note=f"channels_last {'on' if channels_last else 'off'}; {sum(same) / len(same):.0%} of the boxes of the "
            "peer, which resizes floats where this project resizes bytes, are found",
        )
    ]


def random_images(count: int) -> list[np.ndarray]:
    """Draw smooth blobs of colour, uint8 `[375, 500, 3]`."""
    generator = np.random.default_rng(0)
    height, width = SIZE_PX
    blobs = generator.integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    return [cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC) for image in blobs]


def same_detectors(net: SSD, device: torch.device, images: list[np.ndarray]) -> tuple[Detector, nn.Module]:
    """Build both sides with the same weights, scaled to detect about as much as trained ones.

    Args:
        net: see `compare_predict`.
        device: device of both sides.
        images: images that determine the scale of the outputs.
    """
    net.use_normalization(TORCHVISION_SSD)
    num_classes = net.num_classes
    postprocess = PostProcess(clip_first=True)  # as in torchvision, whose thresholds are the same
    detector = Detector(net, class_names=list(map(str, range(num_classes))), postprocess=postprocess)
    # Offsets and logits of deviation 1 let a few hundred scores of an image pass the threshold.
    with torch.no_grad():
        sample = torch.from_numpy(cv2.resize(images[0], (300, 300))).permute(2, 0, 1)[None]
        output = net(sample)
        for convolutions, values in ((net.head.box, output.box_offsets), (net.head.cls, output.class_logits)):
            for convolution in convolutions:
                convolution.weight /= values[..., 1:].std()
    peer = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=num_classes + 1).eval()
    peer.load_state_dict(export_weights(net, "torchvision"))
    net.to(device)
    return detector, peer.to(device)


def _share_found(ours: ImageDetections, theirs: dict[str, Tensor]) -> float:
    """Return the fraction of their boxes that match one of ours with the same class and an IoU above .9."""
    iou = box_iou(theirs["boxes"].cpu(), torch.from_numpy(ours.boxes_xyxy_px))
    same_class = theirs["labels"][:, None].cpu() == torch.from_numpy(ours.labels)
    return float(((iou > 0.9) & same_class).any(dim=1).float().mean()) if len(iou) else 1.0
