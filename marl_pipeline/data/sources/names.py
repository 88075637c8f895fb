"""Which symbols are meant: the universe file and the benchmark."""

from __future__ import annotations

import re
from pathlib import Path

from marl_pipeline.config import NOT_SET
from marl_pipeline.data.schema import SPELLINGS, found, match, symbols
from marl_pipeline.data.sources.tables import read_table
from marl_pipeline.errors import UserError


def is_set(path: str) -> bool:
    """Whether an optional input is given: `data/not_set` (or nothing) means it is not."""
    return path not in ("", NOT_SET)


def read_universe(path: str) -> tuple[str, ...] | None:
    """The symbols of a universe file, each once, in its order: a csv or parquet with a column `symbol`, or a text
    file with one symbol a line (a `#` between blanks starts a comment). None when it is not set.

    Raises:
        UserError: the file is missing or names no symbol.
    """
    if not is_set(path):
        return None
    if path.lower().endswith(".txt"):
        names = read_lines(path)
    else:
        frame = read_table(Path(path))
        column = match(frame, {"symbol": SPELLINGS["symbol"]}, path).get("symbol")
        if column is None:
            raise UserError(f"{path}: column 'symbol' is missing ({found(frame)})")
        names = list(symbols(frame[column], path))
    if not names:
        raise UserError(f"{path}: names no symbol")
    return tuple(dict.fromkeys(names))


def benchmark_symbol(path: str) -> str | None:
    """The symbol that `data.benchmark` names, if it is a one-line text file and not a file of bars.

    Raises:
        UserError: the file is missing or holds more than one line.
    """
    if not is_set(path) or not path.lower().endswith(".txt"):
        return None
    names = read_lines(path)
    if len(names) != 1 or len(names[0].split()) != 1:
        raise UserError(f"{path}: expected one line with the benchmark's symbol, found {len(names)} lines")
    return names[0]


def read_lines(path: str) -> list[str]:
    """Lines of a text file without comments and blanks."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    lines = (re.split(r"(?:^|\s)#(?:\s|$)", line, maxsplit=1)[0].strip() for line in text.splitlines())
    return [line for line in lines if line]
