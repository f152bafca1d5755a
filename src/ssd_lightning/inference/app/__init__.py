"""A local web page and JSON endpoints for a detector."""
