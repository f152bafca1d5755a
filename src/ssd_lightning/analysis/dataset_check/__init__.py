"""The check of a data set before a run: images and boxes, splits, priors, and a few training steps."""
