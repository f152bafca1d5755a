"""Loads and runs exported files. Files are treated as untrusted."""
