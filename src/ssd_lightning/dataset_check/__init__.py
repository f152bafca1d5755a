"""The check of a data set before a run: read with `data`, judged with `analysis`, tried with `training`."""
