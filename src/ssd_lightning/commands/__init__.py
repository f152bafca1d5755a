"""The work of each command. A module here is imported after the command line was checked, so `--help` is fast."""
