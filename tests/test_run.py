"""What a run says of itself at its start and its end."""

from pathlib import Path

import pytest

from helpers.commands import run_command
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


def test_a_trial_of_one_batch_does_not_miss_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toys = ["data.num_train=4", "data.num_val=2", "data.num_test=2", "data.batch_size=2", "data.num_workers=0"]
    small = ["image_size=[64,64]", "trainer.accelerator=cpu", "trainer.fast_dev_run=true"]
    run_command(tmp_path, "train", "experiment=toy_tiny", *toys, *small)
    printed = capsys.readouterr()
    assert "trainer.fast_dev_run: neither checkpoints nor a report are written" in printed.err
    assert "was written" not in printed.out
