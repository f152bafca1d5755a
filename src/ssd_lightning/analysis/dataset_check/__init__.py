"""The check of a data set before a run: read by `data`, analysed by `analysis`, tried with `training`."""
