"""What numbers say about a data set before a network is trained on it: its health, its priors, its first steps."""
