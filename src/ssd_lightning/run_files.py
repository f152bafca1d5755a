"""Names of the files in a run directory that more than one package knows."""

RESULT = "result.json"
"""The last file that a run writes: where it lies, the run is over."""
RECORD = "run.json"
"""What repeats a run: command, seed, versions, machine, data."""
EVALUATIONS = "evaluations"
"""Folder of the evaluation records, `SPLIT.npz`: see `ssd_lightning.analysis.evaluation_record`."""
