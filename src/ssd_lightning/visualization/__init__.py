"""Floor 1: draws. Takes arrays, gives images; knows no data set and no trainer."""
