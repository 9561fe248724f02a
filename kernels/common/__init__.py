"""Device code that several engines call."""
