"""Exports networks for other programs, and verifies the exported files."""
