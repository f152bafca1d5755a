"""Compute a loss only for the priors that count in it. On a CPU, this makes the loss twice as fast.

Only a few percent of the priors are positives or chosen negatives. On a CPU, their rows are gathered first. On a GPU,
the host would have to wait for the number of rows. There, all priors are used, and the others have weight 0.
"""

import torch
from torch import Tensor

HOST_DEVICES = ("cpu",)
"""Devices whose values the host can read without waiting."""
Rows = Tensor | None
"""int64 `[R]`, indices into `[B * K]`; None stands for all of them."""


def is_on_host(tensor: Tensor) -> bool:
    """Tell whether the host can read the values of a tensor without waiting for an accelerator."""
    return tensor.device.type in HOST_DEVICES


def rows_that_count(mask: Tensor) -> Rows:
    """Find the rows where a mask `[B, K]` holds; all of them on an accelerator."""
    return mask.flatten().nonzero()[:, 0] if is_on_host(mask) else None


def take_rows(values: Tensor, rows: Rows) -> Tensor:
    """Select rows of `[B, K, ...]`: `[R, ...]`."""
    values = values.flatten(0, 1)
    return values if rows is None else values.index_select(0, rows)


def put_rows(values: Tensor, rows: Rows, mask: Tensor) -> Tensor:
    """Place values `[R]` where a mask `[B, K]` holds, zero elsewhere: `[B, K]`."""
    if rows is None:
        return torch.where(mask, values.view_as(mask), 0.0)
    return values.new_zeros(mask.numel()).index_copy_(0, rows, values).view_as(mask)
