import functools
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ssd_lightning.errors import WeightsError
from ssd_lightning.models import SSD
from ssd_lightning.models.backbones import VGG16
from ssd_lightning.models.extras import SSDExtras
from ssd_lightning.models.weights import from_ssd_pytorch
from ssd_lightning.ops.normalization import IDENTITY
from ssd_lightning.ops.priors import SSD300_VOC

EXTRAS = [(256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0)]


def ssd300(num_classes: int) -> SSD:
    names = ("mid_channels", "out_channels", "stride", "padding")
    layers = [dict(zip(names, numbers, strict=True)) for numbers in EXTRAS]
    return SSD(
        backbone=VGG16(),
        extras=functools.partial(SSDExtras, layers=layers),
        levels=SSD300_VOC,
        image_size=300,
        num_classes=num_classes,
        normalization=IDENTITY,
        clip_priors=True,
    )


def meta_weights(num_classes: int) -> dict[str, Tensor]:
    """ssd.pytorch's names and shapes, from the architecture in its paper, without a byte of memory."""
    with torch.device("meta"):
        ours = ssd300(num_classes).state_dict()
    convolutions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33]
    theirs = [f"vgg.{i}.{part}" for i in convolutions for part in ("weight", "bias")]
    theirs += ["L2Norm.weight"]
    theirs += [f"extras.{i}.{part}" for i in range(8) for part in ("weight", "bias")]
    theirs += [f"{head}.{i}.{part}" for head in ("loc", "conf") for i in range(6) for part in ("weight", "bias")]
    assert len(theirs) == len(ours) == 71
    return dict(zip(theirs, ours.values(), strict=True))


def drawn_weights(names: list[str], shapes: list[list[int]]) -> dict[str, Tensor]:
    """The rule of the reference: each weight's generator is seeded by its name."""
    state = {}
    for name, shape in zip(names, shapes, strict=True):
        rng = np.random.RandomState(zlib.crc32(name.encode()) % 2**32)
        if name == "L2Norm.weight":
            values = rng.uniform(10, 20, shape)
        elif name.endswith("bias"):
            values = rng.uniform(-0.1, 0.1, shape)
        else:
            values = rng.standard_normal(shape) * math.sqrt(2 / np.prod(shape[1:]))
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state


def test_forward_equals_ssd_pytorch(reference_dir: Path) -> None:
    reference = np.load(reference_dir / "ssd_pytorch_forward_0.npz")
    state = drawn_weights(reference["names"].tolist(), [json.loads(shape) for shape in reference["shapes"]])
    with torch.device("meta"):  # the initial weights, which are replaced at once, take seconds
        net = ssd300(num_classes=20)
    net.load_state_dict(from_ssd_pytorch(state), assign=True)
    net.priors_cxcywh = torch.zeros(8732, 4)  # the meta device has no numbers for them
    images = np.random.RandomState(0).uniform(-120, 130, (1, 3, 300, 300)).astype(np.float32)
    with torch.inference_mode():
        output = net.eval()(torch.from_numpy(images))
    # Deeper levels of these random weights reach the hundreds, where float32 itself is uncertain by 7e-4 (float64
    # tells), so the bound is relative to each level's spread.
    level = [i for i, cells in enumerate((5776, 2166, 600, 150, 36, 4)) for _ in range(cells)][::4]
    for ours, theirs in ((output.box_offsets, reference["loc"]), (output.class_logits, reference["conf"])):
        difference, theirs = (ours[0, ::4] - torch.from_numpy(theirs)).abs(), torch.from_numpy(theirs)
        for index in range(6):
            mine = torch.tensor(level) == index
            assert difference[mine].max() < 1e-5 * theirs[mine].std()


@pytest.mark.parametrize("num_classes", [1, 20])
def test_names_and_shapes_are_those_of_our_network(num_classes: int) -> None:
    with torch.device("meta"):
        wanted = {name: weight.shape for name, weight in ssd300(num_classes).state_dict().items()}
    renamed = from_ssd_pytorch(meta_weights(num_classes))
    assert {name: weight.shape for name, weight in renamed.items()} == wanted


def test_what_does_not_fit_is_named() -> None:
    good = meta_weights(3)
    from_ssd_pytorch(good)
    with pytest.raises(WeightsError, match=r"vgg\.31\.bias is missing"):
        from_ssd_pytorch({name: weight for name, weight in good.items() if name != "vgg.31.bias"})
    with pytest.raises(WeightsError, match=r"1 names or shapes differ: extra\.0 is unknown"):
        from_ssd_pytorch({**good, "extra.0": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"loc\.0\.weight has shape \(1, 2\) instead of \(16, 512, 3, 3\)"):
        from_ssd_pytorch({**good, "loc.0.weight": torch.zeros(1, 2)})
    with pytest.raises(WeightsError, match=r"conf\.1\.bias has shape \(126,\) instead of \(24,\)"):
        from_ssd_pytorch({**good, "conf.1.bias": torch.zeros(126)})
    with pytest.raises(
        WeightsError, match=r"71 names or shapes differ: L2Norm\.weight is missing; vgg\.0\.weight is missing"
    ):
        from_ssd_pytorch({})
