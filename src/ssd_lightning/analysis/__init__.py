"""Analysis of a data set (faults, priors, the first training steps) and of evaluations."""
