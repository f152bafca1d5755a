"""Runs exported files, and reads them as what others may have made: with distrust."""
