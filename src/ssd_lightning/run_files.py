"""Names of the files in a run directory that more than one room knows."""

RESULT = "result.json"
"""The last file that a run writes: where it lies, the run is over."""
