"""HTML pages of one run and of several compared runs. They need no network access."""
