"""The ground: where everything is stored."""
