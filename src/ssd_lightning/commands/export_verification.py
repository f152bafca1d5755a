"""Verify an exported file: run it next to its checkpoint, and print how they differ."""

import math
from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.progress import track

from ssd_lightning.data.detection_data import DetectionData
from ssd_lightning.data.images import read_image
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.export.verify_export import Batch, Seconds, drawn_images, verification_table, verify_export
from ssd_lightning.inference.runtime.description import network_files
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.timing import seconds_of, time_pairs
from ssd_lightning.visualization.tables import print_table, score_text


def verify_file(
    config: DictConfig, checkpoint: Detector, data: DetectionData | None, path: Path, *, own: PostProcess | None
) -> list[str]:
    """Load a file, run it next to the checkpoint, print the table, and return the values that exceed their limit.

    The checkpoint has the post-processing of the file; `own` is its own one, if the file cannot contain it. `data`, if
    given, is what mAP is measured on.
    """
    exported = Detector.load(path, backend=config.backend)
    batches: Iterable[Batch]
    if data is None:
        source, images = "drawn images", drawn_images(config.images, checkpoint.image_size)
        batches = ((checkpoint.prepare(images[start : start + 5])[0], None) for start in range(0, len(images), 5))
    else:
        source, records = f"images of the {config.split} split", data.dataset(config.split).annotations
        some = islice(records, 0, None, math.ceil(len(records) / config.images))
        images = [read_image(record.image_path, record.size_px) for record in some]
        batches = track(data.evaluation_loader(config.split), description="both", transient=True)
    verification = verify_export(checkpoint, exported, batches, images, own=own)
    tolerance = None if config.quantize else float(config.tolerance)
    weights = sum(tensor.nbytes for tensor in checkpoint.network.state_dict().values())
    print(f"{config.checkpoint} and {path} on {verification.parity.images} {source}:")
    print_table(
        verification_table(
            verification,
            tolerance=tolerance,
            max_map_loss=config.max_map_loss,
            seconds=time_both(checkpoint, exported) if config.latency and config.format != "safetensors" else {},
            bytes_of=(weights, sum(file.stat().st_size for file in network_files(path))),
        )
    )
    print("Boxes in shares of the image's sides; partners are of one class and no more than 0.02 apart.")
    if own is not None and verification.own_scores:
        scores = ", ".join(f"{name} {score_text(value)}" for name, value in verification.own_scores.items())
        method = f"postprocess.soft_nms={own.soft_nms}"
        print(f"All is with NMS. With its {method}, which nms=false keeps, the checkpoint has {scores}.")
    if verification.whole is not None:
        print("resized: images of their own size go in, and the file resizes them; partners are 0.05 apart at most.")
    if verification.parity.detections + verification.parity.others == 0:
        print("Nothing was detected on either side, which shows little; give images with data=, or lower thresholds.")
    return verification.failures(tolerance=tolerance, max_map_loss=config.max_map_loss)


def time_both(checkpoint: Detector, exported: Detector) -> dict[int, Seconds]:
    """Time both alternately, from images of the network's size to detections, about ten seconds per batch size."""
    drawn, seconds = drawn_images(8, checkpoint.image_size), {}
    for batch in (1, 8):
        images, _ = checkpoint.prepare(drawn[:batch])
        sides = [partial(detector.detect, images) for detector in (checkpoint, exported)]
        once = sum(seconds_of(side, torch.device("cpu")) for side in sides)
        pairs = min(15, max(3, int(10 / once)))
        seconds[batch] = time_pairs(*sides, pairs=pairs, device=torch.device("cpu"), warmup=2)
    return seconds
