"""Drawing: arrays in, images out. This package does not depend on data sets or trainers."""
