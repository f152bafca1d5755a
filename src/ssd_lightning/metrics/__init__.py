"""Floor 1: torchmetrics metrics over pure functions."""
