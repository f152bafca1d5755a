"""Data sets, augmentation and download. This package does not depend on priors, networks or trainers."""
