"""What a training shows besides its numbers: images, curves and tables, in every place where it is looked at."""
