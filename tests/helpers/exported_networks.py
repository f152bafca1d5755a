"""Small detectors with random weights that see something, for tests of export."""

import contextlib
import functools
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import pixels
from helpers.docs_commands import REPOSITORY
from helpers.tiny_nets import tiny_net
from ssd_lightning.assembly import make_net
from ssd_lightning.config import compose_config
from ssd_lightning.data.image_io import as_rgb
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.export.verify_export import Parity
from ssd_lightning.inference.runtime.exported_files import Backend
from ssd_lightning.models import SSD
from ssd_lightning.models.head import SharedHead
from ssd_lightning.models.neck import FPN, FPNLite
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.normalization import SUBTRACT_MEAN_BGR

CLASS_NAMES = ("circle", "square", "star")
TINY_FILES = Path(__file__).parents[1] / "inference" / "runtime" / "tiny_files"
"""`tiny_detector(neck="fpnlite")` as safetensors, and as onnx2tf 1.29.24 converted it."""

NECKS: dict[str, dict[str, Any]] = {
    "none": {},
    "fpn": {"neck": functools.partial(FPN, out_channels=8)},
    "fpnlite": {
        "neck": functools.partial(FPNLite, out_channels=8, extra_levels=0),
        "head": functools.partial(SharedHead, channels=8, num_layers=2),
    },
}


def tiny_detector(*, neck: str = "none", class_names: Sequence[str] = CLASS_NAMES, **settings: object) -> Detector:
    """Three levels over 32 x 48 pixels; takes BGR, so that exchanged colours are noticed."""
    net = tiny_net(num_classes=len(class_names), normalization=SUBTRACT_MEAN_BGR, **NECKS[neck])
    return Detector(spread_out(net), class_names=class_names, postprocess=PostProcess(**{"top_k": 20, **settings}))


def composed_detector(*overrides: str) -> Detector:
    """A network of the configurations, with random weights."""
    torch.manual_seed(0)
    net = make_net(compose_config("train", list(overrides)), 3, pretrained=False)
    return Detector(spread_out(net), class_names=CLASS_NAMES)


@torch.no_grad()
def spread_out(net: SSD) -> SSD:
    """Give batch norms something to do, and offsets and logits a deviation of 1 on noise."""
    net.eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.normal_(0, 0.2)
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    output = net(noise(1, net.image_size))
    for convolutions, values in ((net.head.box, output.box_offsets), (net.head.cls, output.class_logits)):
        for predictor in convolutions:
            last = [layer for layer in predictor.modules() if isinstance(layer, nn.Conv2d)][-1]
            last.weight /= values.std().clamp(min=1e-6)
            last.bias.normal_(0, 0.3)
    return net


def noise(batch: int, image_size: tuple[int, int], seed: int = 0) -> Tensor:
    """uint8 `[B, 3, H, W]`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, *image_size), dtype=torch.uint8, generator=generator)


def exported(detector: Detector, folder: Path, suffix: str, **inside: Any) -> Path:
    """Write a detector and give the path; what is inside of TFLite and ncnn files is fixed."""
    from ssd_lightning.inference.export import converters, files

    path = folder / f"detector{suffix}"
    if suffix in (".tflite", ".param"):
        {".tflite": converters.write_tflite, ".param": converters.write_ncnn}[suffix](detector, path)
    else:
        write = {".onnx": files.write_onnx, ".torchscript": files.write_torchscript}[suffix]
        write(detector, path, **{"preprocessing": True, "nms": True, **inside})
    return path


def check_same(
    detector: Detector, path: Path, *, batches: tuple[int, ...] = (1, 2, 5), backend: Backend = "onnx"
) -> None:
    """Assert that a file detects on noise what the detector that it was made from does."""
    loaded, found = Detector.load(path, backend=backend), Parity()
    assert (loaded.class_names, loaded.image_size) == (detector.class_names, detector.image_size)
    for batch in batches:
        images = noise(batch, detector.image_size, seed=batch)
        for ours, theirs in zip(detector.detect(images), loaded.detect(images), strict=True):
            assert {name: tensor.dtype for name, tensor in theirs.items()} == {n: t.dtype for n, t in ours.items()}
            found.update(ours, theirs, detector.image_size)
    assert found.detections > 10
    assert (found.unmatched, found.boxes < 1e-5, found.scores < 1e-5) == (0, True, True), found


def run_page_program(part: str, folder: Path, size_px: tuple[int, int]) -> tuple[dict[str, Any], np.ndarray]:
    """Run a program of `docs/export.md`, on a turned photo: gives its variables, and the photo upright."""
    photo = pixels.save_turned(folder / "image.jpg", pixels.noise(*size_px), 6, quality=95)
    page = (REPOSITORY / "docs" / "export.md").read_text()
    [program] = [block for block in re.findall(r"(?s)```python\n(.*?)```", page) if part in block]
    values: dict[str, Any] = {}
    with contextlib.chdir(folder):
        exec(compile(program, "page", "exec"), values)
    return values, as_rgb(photo)


def check_threads(detector: Detector) -> None:
    """Assert that threads which detect at the same time get what one gets alone."""
    images = [noise(1, detector.image_size, seed=seed) for seed in range(3)]
    alone = [detector.detect(image)[0]["scores"] for image in images]

    def often(place: int) -> bool:
        found = (detector.detect(images[place])[0]["scores"] for _ in range(30))
        return all(scores.shape == alone[place].shape and scores.allclose(alone[place]) for scores in found)

    with ThreadPoolExecutor(len(images)) as pool:
        assert all(pool.map(often, range(len(images))))
