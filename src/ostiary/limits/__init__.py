"""How much, how often."""
