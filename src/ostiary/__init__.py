"""Ostiary: a self-hosted AI gateway with a key vault."""
