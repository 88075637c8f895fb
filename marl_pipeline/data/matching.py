"""Whether the symbols that a companion names are those of the bars, and which spelling was probably meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping

from marl_pipeline.errors import UserError

NAMED = 5
"""Symbols that a message names before it says how many more there are."""

PREFIX = re.compile(r"^[A-Za-z]{2,8}:(?=[A-Za-z0-9])")
"""An exchange before the symbol, as in NASDAQ:AAPL."""
EXCHANGES = "US|OQ|O|N|L|LN|LSE|DE|PA|F|T|TO|V|HK|SS|SZ|SH|AX|MI|AS|SW|MC|NS|BO|KS|KQ|TW|SA|ST|CO|HE|OL|VI|BR|LS|IR"
SUFFIX = re.compile(rf"(?i)(?:[.:](?:{EXCHANGES}|NYSE|NASDAQ|XNYS|XNAS)|-USD?T?|[ ](?:US|UN|UW|UQ)(?:[ ]equity)?)$")
"""An exchange behind it, as in AAPL.US, AAPL.O, AAPL:US and AAPL US Equity; no class of shares, as in BRK.B."""


def likely_spelling(name: str, among: Collection[str]) -> str | None:
    """The symbol of `among` that `name` is a spelling of: another case or separator (BRK.B, BRK-B, BRK/B, BRKB), a sign
    ($AAPL, ^GSPC) or an exchange (AAPL.US, NASDAQ:AAPL) more or less. None if there is none or more than one."""
    return likely_spellings([name], among).get(name)


def likely_spellings(names: Iterable[str], among: Collection[str]) -> dict[str, str]:
    """`likely_spelling` of each of `names` that is not itself in `among` and has one."""
    whole, bare = _by_form(among, _plain), _by_form(among, _bare)
    found = {}
    for name in names:
        if name in among:
            continue
        candidates = whole.get(_plain(name)) or whole.get(_bare(name)) or bare.get(_bare(name)) or set()
        if len(candidates) == 1:
            found[name] = next(iter(candidates))
    return found


def _by_form(names: Iterable[str], form: Callable[[str], str]) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name in names:
        found.setdefault(form(name), set()).add(name)
    return found


def _plain(name: str) -> str:
    """Without signs and separators, in capitals."""
    return re.sub(r"[^A-Z0-9]", "", name.upper())


def _bare(name: str) -> str:
    """The same without an exchange before or behind."""
    return _plain(SUFFIX.sub("", PREFIX.sub("", name.strip())))


def compare(named: Iterable[str], among: Iterable[str], parameter: str, origin: str = "") -> list[str]:
    """What to say of a companion of the symbols `named` beside bars of the symbols `among`: nothing if all are there.

    Raises:
        UserError: none of them is among the bars.
    """
    theirs, ours = sorted(set(named)), set(among)
    missing = [name for name in theirs if name not in ours]
    if not missing:
        return []
    meant = likely_spellings(missing, ours)
    if len(missing) == len(theirs):
        some = ", ".join(sorted(ours)[:3])
        hint = "; ".join(f"'{theirs}' is probably '{ours}'" for theirs, ours in list(meant.items())[:NAMED])
        where = f"{origin}: {parameter}" if origin else parameter
        raise UserError(
            f"{where}: none of its {len(theirs)} symbols ({listed(theirs, 3)}) is among the bars "
            f"({some}{', ...' if len(ours) > 3 else ''}); {hint or 'write them as the bars do'}"
        )
    lines = [f"{parameter}: {len(missing)} of {len(theirs)} symbols are not among the bars ({listed(missing)})"]
    if meant:
        pairs = [f"'{theirs}' is probably '{ours}'" for theirs, ours in meant.items()]
        lines.append(f"{parameter}: {'; '.join(pairs[:20])}{'; ...' if len(pairs) > 20 else ''}: spell them alike")
    return lines


def refuse_case_clash(symbols: Iterable[str]) -> None:
    """Raises if two symbols of the bars differ by case only: one spelled twice, and one folder on some systems."""
    first: dict[str, str] = {}
    for name in sorted(symbols):
        other = first.setdefault(name.lower(), name)
        if other != name:
            raise UserError(f"bars: symbols {other} and {name} differ by case only; rename one")


def listed(names: Iterable[str], most: int = NAMED) -> str:
    """The first few names and how many more there are."""
    every = list(names)
    more = len(every) - most
    return ", ".join(every[:most]) + (f" and {more} more" if more > 0 else "")
