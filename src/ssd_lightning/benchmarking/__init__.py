"""Compare this project with its alternatives, one part per module, in one process and one run."""
