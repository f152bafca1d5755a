"""Analysis of a data set and of evaluations: its health, its priors and its first training steps."""
