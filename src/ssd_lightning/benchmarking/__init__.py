"""Floor 2: measures this project beside what people would use instead, a part a file, in one process and one run."""
