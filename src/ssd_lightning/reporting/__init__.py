"""HTML pages of one run and of several compared runs. They need no network access.

`DataError` is raised for a directory that is not a run, for a damaged file and for a page that cannot be written.
"""
