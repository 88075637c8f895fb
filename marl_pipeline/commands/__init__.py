"""Groups of sub-commands of `marl`. Everything heavy is imported by the sub-command that needs it."""
