"""The Python runtime server for functions with the signature handler(event, context)."""
