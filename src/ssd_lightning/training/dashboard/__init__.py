"""What a training shows besides its numbers: pictures, curves and tables, in every place where it is looked at."""
