"""Sweeps: many runs from one command line. Every job runs in its own process. Nothing here imports torch."""
