"""The prediction head: small convolutions from every feature map to offsets and logits (SSD paper, section 2.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssd_lightning.models.layers import init_xavier


class SSDHead(nn.Module):
    """A pair of 3 x 3 convolutions for every feature map.

    Args:
        in_channels: of every feature map.
        boxes_per_cell: of every feature map.
        num_classes: C, without the background.
    """

    def __init__(self, *, in_channels: Sequence[int], boxes_per_cell: Sequence[int], num_classes: int) -> None:
        super().__init__()
        sizes = list(zip(in_channels, boxes_per_cell, strict=True))
        self.num_logits = num_classes + 1
        self.box = nn.ModuleList(nn.Conv2d(c, boxes * 4, 3, padding=1) for c, boxes in sizes)
        self.cls = nn.ModuleList(nn.Conv2d(c, boxes * self.num_logits, 3, padding=1) for c, boxes in sizes)
        init_xavier(self)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Predict from the feature maps `[B, in_channels[i], H_i, W_i]`.

        Returns:
            Offsets `[B, K, 4]` and logits `[B, K, C + 1]`, in the priors' order: level, row, column, box.
        """
        offsets = [_flatten(conv(x), 4) for conv, x in zip(self.box, features, strict=True)]
        logits = [_flatten(conv(x), self.num_logits) for conv, x in zip(self.cls, features, strict=True)]
        return torch.cat(offsets, dim=1), torch.cat(logits, dim=1)


def _flatten(prediction: Tensor, width: int) -> Tensor:
    # The channel is box * width + coordinate or class: channels last, then cells and boxes become one axis.
    return prediction.permute(0, 2, 3, 1).unflatten(3, (-1, width)).flatten(1, 3)
