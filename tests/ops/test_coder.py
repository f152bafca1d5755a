import math

import pytest
import torch

from ssd_lightning.ops.coder import VARIANCES, decode, encode


@pytest.mark.parametrize("variances", [VARIANCES, (0.3, 0.05)])
def test_decode_inverts_encode(variances: tuple[float, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    centre, side = torch.rand(2, 3, 50, 2, generator=generator)
    boxes = torch.cat([3 * centre - 1, 0.05 + 2 * side], dim=-1)  # ratios of sides of up to 41
    priors = boxes[0].flip(0)
    torch.testing.assert_close(decode(encode(boxes, priors, variances), priors, variances), boxes, rtol=1e-4, atol=1e-4)


def test_encode_is_equation_2() -> None:
    prior, box = torch.tensor([[0.5, 0.4, 0.2, 0.1]]), torch.tensor([[0.6, 0.3, 0.4, 0.3]])
    expected = [0.1 / 0.2 / 0.1, -0.1 / 0.1 / 0.1, math.log(2) / 0.2, math.log(3) / 0.2]
    torch.testing.assert_close(encode(box, prior), torch.tensor([expected]))
    assert VARIANCES == (0.1, 0.2)


@pytest.mark.parametrize(("offset", "ratio"), [(20.0, math.exp(4)), (21.0, 1000 / 16), (math.inf, 1000 / 16)])
def test_sizes_are_held_at_the_largest_ratio(offset: float, ratio: float) -> None:
    prior = torch.tensor([[0.5, 0.5, 0.1, 0.2]])
    decoded = decode(torch.tensor([[0, 0, offset, offset]]), prior)
    torch.testing.assert_close(decoded[:, 2:], prior[:, 2:] * ratio)
