"""Other people's checkpoints under our names: SSD(VGG16) from ssd.pytorch."""

from collections.abc import Mapping

from torch import Tensor

from ssd_lightning.errors import WeightsError

Shape = tuple[int, ...]
Table = dict[str, tuple[str, Shape]]
"""From their name to ours and the shape."""

# (their index in `vgg`, our module, output channels); pooling and ReLU take the indices between.
SSD_PYTORCH_VGG = (
    *((index, f"to_conv4_3.{index}", 64) for index in (0, 2)),
    *((index, f"to_conv4_3.{index}", 128) for index in (5, 7)),
    *((index, f"to_conv4_3.{index}", 256) for index in (10, 12, 14)),
    *((index, f"to_conv4_3.{index}", 512) for index in (17, 19, 21)),
    *((index, f"to_conv7.{index - 23}", 512) for index in (24, 26, 28)),
    *((index, f"to_conv7.{index - 23}", 1024) for index in (31, 33)),
)
# (output channels, kernel size) of extras.0 to extras.7, two for each of our levels
SSD_PYTORCH_EXTRAS = ((256, 1), (512, 3), (128, 1), (256, 3), (128, 1), (256, 3), (128, 1), (256, 3))
# (input channels, boxes per cell) of the heads
SSD_PYTORCH_HEADS = ((512, 4), (1024, 6), (512, 6), (256, 6), (256, 4), (256, 4))


def from_ssd_pytorch(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of ssd.pytorch's SSD300 (github.com/amdegroot/ssd.pytorch), of any number of classes.

    They want pictures normalised by `ops.normalization.SUBTRACT_MEAN_RGB` and clipped priors.

    Args:
        state_dict: of its `SSD`.

    Returns:
        The state dict of our `SSD` on `VGG16` with the extra layers of SSD300.

    Raises:
        WeightsError: a name is missing or unknown, or a shape differs; the message names the first few.
    """
    backbone = "extractor.backbone"
    num_logits = len(state_dict.get("conf.0.bias", ())) // SSD_PYTORCH_HEADS[0][1]
    table: Table = {"L2Norm.weight": (f"{backbone}.norm.weight", (512,))}
    in_channels = 3
    for index, module, channels in SSD_PYTORCH_VGG:
        kernel = 1 if index == 33 else 3  # fc7 as a convolution
        table |= _convolution(f"vgg.{index}", f"{backbone}.{module}", (channels, in_channels, kernel, kernel))
        in_channels = channels
    for index, (channels, kernel) in enumerate(SSD_PYTORCH_EXTRAS):
        module = f"extractor.extras.levels.{index // 2}.{index % 2}.0"
        table |= _convolution(f"extras.{index}", module, (channels, in_channels, kernel, kernel))
        in_channels = channels
    for index, (channels, boxes) in enumerate(SSD_PYTORCH_HEADS):
        table |= _convolution(f"loc.{index}", f"head.box.{index}", (boxes * 4, channels, 3, 3))
        table |= _convolution(f"conf.{index}", f"head.cls.{index}", (boxes * num_logits, channels, 3, 3))
    return _renamed(state_dict, table, "ssd.pytorch's SSD300")


def _convolution(theirs: str, ours: str, shape: Shape) -> Table:
    return {f"{theirs}.weight": (f"{ours}.weight", shape), f"{theirs}.bias": (f"{ours}.bias", shape[:1])}


def _renamed(state_dict: Mapping[str, Tensor], table: Table, source: str) -> dict[str, Tensor]:
    problems = [f"{name} is missing" for name in table if name not in state_dict]
    problems += [f"{name} is unknown" for name in state_dict if name not in table]
    problems += [
        f"{name} has shape {tuple(state_dict[name].shape)} instead of {shape}"
        for name, (_, shape) in table.items()
        if name in state_dict and tuple(state_dict[name].shape) != shape
    ]
    if problems:
        shown = "; ".join(problems[:3])
        raise WeightsError(f"these are not the weights of {source}: {len(problems)} names or shapes differ: {shown}")
    return {ours: state_dict[theirs] for theirs, (ours, _) in table.items()}
