"""The `marl` command: what it offers, and how it tells of mistakes. Everything heavy is imported on use."""
