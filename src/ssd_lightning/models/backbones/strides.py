"""Choice of a backbone's feature maps by their strides."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models.layers import apply_in_turn


class SequenceBackbone(nn.Module):
    """Base class of backbones that are one sequence of layers. Its feature maps are taken between them.

    Attributes:
        features: all layers.
        ends: number of layers up to each feature map.
    """

    features: nn.Sequential
    ends: tuple[int, ...]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised images `[B, 3, H, W]` to maps `[B, out_channels[i], H_i, W_i]`."""
        return apply_in_turn((self.features[start:end] for start, end in pairwise((0, *self.ends))), images)


def check_strides(
    strides: Sequence[int], *, possible: Sequence[int], network: str, to_the_end: bool = True
) -> tuple[int, ...]:
    """Check the configured strides of a backbone.

    `possible` are those of the network, finest first. `to_the_end` requires the last map. Otherwise the layers after
    the last requested map would get no gradients, which fails in training on several devices.

    Raises:
        ConfigurationError: the network has no such maps, or the order is wrong. The message lists the maps.
    """
    wanted = tuple(strides) if isinstance(strides, Sequence) else ()
    in_order = tuple(stride for stride in possible if stride in wanted)
    if not wanted or wanted != in_order or (to_the_end and wanted[-1] != possible[-1]):
        *others, last = possible
        listed = f"{', '.join(map(str, others))} and {last}" if others else str(last)
        rule = f"the finest first, {last} at the end" if to_the_end else "the finest first"
        raise ConfigurationError(
            f"backbone.strides is {strides}; {network} has maps of stride {listed}: list those you want, {rule}"
        )
    return in_order
