"""A detector behind a local web page and a JSON endpoint: the package that knows HTTP."""
