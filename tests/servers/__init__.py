"""Real servers for tests, and one hostile provider."""
