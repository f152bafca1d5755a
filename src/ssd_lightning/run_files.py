"""Names of files in a run directory that several packages use."""

RESULT = "result.json"
"""The last file that a run writes. If it exists, the run has finished."""
RECORD = "run.json"
"""All that is needed to repeat the run: command, seed, versions, machine, data."""
EVALUATIONS = "evaluations"
"""Folder of the evaluation records, `SPLIT.npz`: see `ssd_lightning.analysis.evaluation_record`."""
