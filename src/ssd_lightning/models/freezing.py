"""Freeze layers of a backbone."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models.layers import fold_norms, pass_on_meta

Stages = int | str | None
"""Number of stages to freeze, counted from the input, or `all`. None or 0 freezes no stage."""


def stages_of(backbone: nn.Module, image_size: tuple[int, int]) -> list[list[str]]:
    """Group the layers of a backbone by the size of their feature maps, finest first.

    A stage of VGG16 is the layers between two poolings. The stages of a ResNet are its first convolution, `layer1`, and
    so on. A block that reduces the size belongs to the stage of the smaller size.

    Returns:
        For each stage, the names of the modules that own parameters, in order of use.
    """
    outputs = _output_widths(backbone, image_size)
    smallest_so_far = list(accumulate(outputs.values(), min))
    largest_from_here_on = list(accumulate(reversed(outputs.values()), max))[::-1]
    groupings = (_group(list(outputs), widths) for widths in (smallest_so_far, largest_from_here_on))
    return max(groupings, key=len)  # HRNet needs the first, attention with reduced keys the second


def _output_widths(backbone: nn.Module, image_size: tuple[int, int]) -> dict[str, int]:
    """Return the feature map width after each module that owns parameters, in order of use.

    A module that is no convolution has the width of the convolution before it. Maps of one cell are ignored, because
    squeeze and excitation has them.
    """
    widths: dict[str, int] = {}
    width = image_size[1]

    def note(name: str, layer: nn.Module, output: Any) -> None:
        nonlocal width
        if isinstance(layer, nn.Conv2d) and isinstance(output, Tensor) and output.shape[-1] > 1:
            width = output.shape[-1]
        widths.setdefault(name, width)

    hooks = [
        layer.register_forward_hook(lambda layer, _, output, name=name: note(name, layer, output))
        for name, layer in backbone.named_modules()
        if [*layer.parameters(recurse=False)]
    ]
    try:
        pass_on_meta(backbone, (1, 3, *image_size), training=False)
    finally:
        for hook in hooks:
            hook.remove()
    return widths


def _group(names: Sequence[str], widths: Sequence[int]) -> list[list[str]]:
    """Begin a stage at the block of each layer that has a smaller width than the one before."""
    starts = [0]
    for index in range(1, len(names)):
        if widths[index] < widths[index - 1]:
            starts.append(_start_of_block(names, index, first=starts[-1]))
    return [list(names[start:end]) for start, end in zip(starts, [*starts[1:], len(names)], strict=True)]


def _start_of_block(names: Sequence[str], index: int, *, first: int) -> int:
    """Find the first layer of the largest block that contains layer `index` and begins after layer `first`."""
    parts = names[index].split(".")
    for length in range(1, len(parts)):
        inside = [place for place, name in enumerate(names) if name.split(".")[:length] == parts[:length]]
        if first < inside[0] <= index:
            return inside[0]
    return index


def freeze_backbone(
    backbone: nn.Module, image_size: tuple[int, int], *, stages: Stages = None, norm: bool = False
) -> tuple[str, ...]:
    """Freeze parameters of a backbone.

    Args:
        backbone: its frozen parameters no longer require gradients.
        image_size: (height, width) of the input.
        stages: see `Stages`.
        norm: also freeze all batch norms.

    Returns:
        Names of the frozen batch norms. They must stay in evaluation mode to keep their running statistics. The
        `new_layers` of a backbone, which are not in its ImageNet weights, are not frozen.

    Raises:
        ConfigurationError: `stages` is invalid, or the backbone has fewer stages.
    """
    stages = 0 if stages in (None, 0) else stages
    found = stages_of(backbone, image_size) if stages != 0 else []
    number = len(found) if stages == "all" else stages
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= len(found):
        raise ConfigurationError(
            f"backbone.freeze is {stages!r}; it can be null, all, or a number of stages counted from the input; this "
            f"backbone has {len(found)}"
        )
    all_norms = [name for name, layer in backbone.named_modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    chosen = {name for stage in found[:number] for name in stage} | set(all_norms if norm else ())
    chosen -= set(getattr(backbone, "new_layers", ()))
    for name in chosen:
        for parameter in backbone.get_submodule(name).parameters(recurse=False):
            parameter.requires_grad_(False)
    frozen_norms = tuple(name for name in all_norms if name in chosen)
    if frozen_norms:
        fold_norms(backbone)
    return frozen_norms
