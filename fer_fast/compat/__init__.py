"""Other libraries' losses, by their names and arguments: replace the import, keep the call."""
