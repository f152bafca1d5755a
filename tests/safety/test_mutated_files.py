"""A short form of `tools/mutate_files.py`: damaged files are named, or change nothing, or are told by checksums."""

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import mutate_files


def test_forty_damaged_files_of_each_kind() -> None:
    trials = mutate_files.run_trials(40, seed=1)
    table = mutate_files.as_table(trials)
    counts = Counter((trial.kind, trial.outcome) for trial in trials)
    assert len(trials) == 80
    assert [trial for trial in trials if trial.outcome == "crashed"] == [], table
    assert mutate_files.silent(trials) == [], table
    assert all(trial.told_by_checksum for trial in trials if trial.outcome == "changed"), table
    # Damage does something, and the readers see most of it.
    assert counts["xml", "named"] > 10
    assert counts["xml", "same"] > 0
    assert counts["jpeg", "named"] > 5
    assert counts["jpeg", "changed"] > 0
