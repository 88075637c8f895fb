"""Environments of other libraries and the user's own, whose names have a colon."""

NAMES = ()
