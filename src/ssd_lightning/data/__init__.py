"""Floor 1: data sets, augmentation and download. Knows no prior, no network and no trainer."""
