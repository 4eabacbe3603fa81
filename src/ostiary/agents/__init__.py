"""Keys that come in."""
