"""Resuming, signals, non-finite steps, checkpoint files, checks of ranks."""
