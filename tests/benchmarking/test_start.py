from pathlib import Path

import pytest

from ssd_lightning.benchmarking.start import PEER, compare_start


@pytest.mark.slow
def test_starts_are_measured_beside_the_import_of_what_they_need(tmp_path: Path) -> None:
    quick, run = compare_start(pairs=1, folder=tmp_path)
    assert (quick.bar, run.bar) == (0.25, 1.5)
    assert quick.at_most
    assert run.at_most
    assert quick.peer == run.peer == PEER
    assert quick.theirs == run.theirs
    assert 0 < quick.ratio < 1 < run.ratio  # a run imports what the peer imports, help does not
    assert (tmp_path / "run" / "metrics.csv").exists() or (tmp_path / "run" / "run.json").exists()
