"""Symbols that a companion spells in another way are named, never taken silently for unknown."""

from __future__ import annotations

import re

import pytest

from marl_pipeline.data.matching import compare, likely_spelling
from marl_pipeline.errors import UserError

BARS = ["AAPL", "MSFT", "BRK-B", "BF.B", "GSPC", "000001"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("aapl", "AAPL"),
        ("$AAPL", "AAPL"),
        ("AAPL.US", "AAPL"),
        ("AAPL.O", "AAPL"),
        ("AAPL US Equity", "AAPL"),
        ("NASDAQ:AAPL", "AAPL"),
        ("BRK.B", "BRK-B"),
        ("BRK/B", "BRK-B"),
        ("BRK B", "BRK-B"),
        ("BRKB", "BRK-B"),
        ("bf-b", "BF.B"),
        ("^GSPC", "GSPC"),
        ("000001.SZ", "000001"),
        ("BRK.A", None),
        ("BRK", None),
        ("GOOG", None),
        ("1", None),
    ],
)
def test_the_likely_spelling_is_found_and_no_other(written: str, meant: str | None) -> None:
    assert likely_spelling(written, BARS) == meant


def test_two_candidates_are_none() -> None:
    assert likely_spelling("BRKB", ["BRK.B", "BRK-B"]) is None


def test_none_among_the_bars_is_refused_and_some_are_listed() -> None:
    assert compare(["AAPL", "MSFT"], BARS, "data.sectors") == []
    with pytest.raises(UserError, match=r"s\.csv: data\.sectors: none of its 2 symbols .* '\$AAPL' is probably 'AAPL'"):
        compare(["$AAPL", "$MSFT"], BARS, "data.sectors", "s.csv")
    lines = compare(["AAPL", "BRK.B", "GOOG"], BARS, "data.sectors")
    assert re.search(r"2 of 3 symbols are not among the bars \(BRK\.B, GOOG\)", lines[0])
    assert "'BRK.B' is probably 'BRK-B'" in lines[1]
