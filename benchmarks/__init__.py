"""Scripts that print tables, each figure beside a limit and a peer."""
