"""The house itself: floors, sizes, names, docs."""
