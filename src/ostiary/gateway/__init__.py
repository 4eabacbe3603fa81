"""Door one: /v1, for callers."""
