"""A detector behind a local web page and a JSON endpoint: the room that knows HTTP."""
