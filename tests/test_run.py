"""What a run says of itself at its start."""

import pytest

from ssd_lightning.run import FEW_VALIDATION_IMAGES, described_validation


@pytest.mark.parametrize(
    ("images", "is_held_out", "told", "not_told"),
    [
        (0, False, "last weights", "rough"),
        (1, True, "1 validation image held out", "images"),
        (FEW_VALIDATION_IMAGES - 1, False, "rough", "held out"),
        (FEW_VALIDATION_IMAGES, True, f"{FEW_VALIDATION_IMAGES} validation images held out", "rough"),
    ],
)
def test_the_start_says_what_the_scores_stand_on(images: int, is_held_out: bool, told: str, not_told: str) -> None:
    line = described_validation(images, is_held_out=is_held_out)
    assert told in line
    assert not_told not in line
