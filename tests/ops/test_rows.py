import pytest
import torch

from ssd_lightning.ops.rows import put_rows, rows_that_count, take_rows


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(3, 7), (0, 5), (2, 0)])
def test_what_is_taken_is_put_back(share: float, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(shape, generator=generator) < share
    values = torch.rand(*shape, generator=generator)
    found = rows_that_count(mask)
    assert found is not None  # on a processor
    assert torch.equal(take_rows(values, found), values[mask])
    for rows in (found, None):
        assert torch.equal(put_rows(take_rows(values, rows), rows, mask), torch.where(mask, values, 0.0))
    assert rows_that_count(mask.to("meta")) is None  # on an accelerator
