"""The one exception that a user is meant to read: what was wrong, where, and what to do about it."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in the input or the configuration, reported in one line.

    The command line prints the message alone, without a traceback, and exits with code 2. Write it as
    `bars.csv: column 'close' is missing (found: date, open, high); name it in data.columns`.
    """


UNREADABLE_PARQUET = (ValueError, OSError, NotImplementedError)
"""The bases of what pyarrow raises on a file that is truncated or corrupt; the last, on features of the format that it
does not read."""
