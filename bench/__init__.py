"""What the gateway costs, measured beside nginx."""
