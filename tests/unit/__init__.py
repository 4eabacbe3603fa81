"""One thing at a time, without I/O."""
