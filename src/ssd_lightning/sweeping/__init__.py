"""Floor 3: many runs from one command line. Every job is a process of its own; nothing here imports torch."""
