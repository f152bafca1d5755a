"""The program that measures the networks of the family: it runs, and its numbers belong to the network."""

import pytest
from family import NETWORKS, measure, table_of

from helpers.choices import without_initialization


def test_size_and_speed_of_a_network() -> None:
    with without_initialization():  # of the peer
        measured = measure([*NETWORKS["TinySSD"], "image_size=[64,64]"], ["PyTorch"], pairs=1)
    (in_pytorch,) = measured["runtimes"]
    assert in_pytorch["file_mib"] == pytest.approx(4 * measured["parameters"] / 2**20, rel=0.05)
    assert in_pytorch["ratio"] == in_pytorch["theirs"][0] / in_pytorch["ours"][0]
    assert 5e7 < measured["multiply_adds"] < 8e7  # of 1.05e9 for 256 x 256
    (row,) = table_of([{"name": "TinySSD", **measured}], ["PyTorch"]).rows
    assert row[:2] == ("TinySSD", f"{measured['parameters'] / 1e6:.1f} M")
    assert row[-1].endswith(" x)")
