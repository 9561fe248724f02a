"""`fer-fast bench gpu`: everything to ask of a chip that is there for minutes, in the order of worth."""
