"""Writes networks for other programs, and proves that they see what the checkpoint sees."""
