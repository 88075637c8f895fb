"""The rules of data quality in words: what each one finds, what to do about it, and what it needs to apply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Need = Literal["close", "range", "volume", "hourly"]


@dataclass(frozen=True)
class Rule:
    """One rule. `needs` names what a source must give for the rule to say anything; `hides_nothing` says why the rule
    can only warn or fail, where that is so."""

    name: str
    meaning: str
    remedy: str
    needs: Need = "close"
    hides_nothing: str = ""


SEEN_AT_THE_END = "it is known only from where the file ends, and hiding by it would look ahead"

NOT_APPLIED: dict[Need, str] = {
    "close": "",
    "range": "the source gives no open, high and low",
    "volume": "the source gives no volume",
    "hourly": "daily bars are labelled by their session, so they have no grid within the day",
}

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "missing_value",
            "A price or volume is empty or infinite in a column that the symbol fills otherwise.",
            "Ask the vendor for the bar again, or drop the row.",
        ),
        Rule("non_positive_price", "A price is zero or negative.", "Drop the row or ask the vendor for it again."),
        Rule(
            "ohlc_inconsistent",
            "High is below, or low is above, another price of the same bar.",
            "Adjusted and unadjusted columns may be mixed: take all four prices from one series.",
            "range",
        ),
        Rule("negative_volume", "Volume is negative.", "Drop the row or ask the vendor for it again.", "volume"),
        Rule(
            "zero_volume",
            "A bar with a price but without any trade: nothing could have been filled at it.",
            "Normal for an index; for a stock, a halt or a gap of the vendor. Take an index out of the universe.",
            "volume",
        ),
        Rule(
            "constant_volume",
            "The same volume for more bars in a row than chance explains: forward-filled or a placeholder.",
            "Ask the vendor for the volume of the span; costs and capacity that are reckoned from it are wrong.",
            "volume",
        ),
        Rule(
            "duplicate",
            "Another row for the same symbol and time. The most complete one is used, the last of several such; the "
            "others are dropped.",
            "Look at how the file was put together: overlapping downloads are the usual cause. Where values differ, "
            "ask the vendor which row is right.",
        ),
        Rule(
            "out_of_order",
            "A row comes after a later one of its symbol. Rows are sorted before use.",
            "Sort the file by symbol and timestamp, and check the zone of the timestamps.",
            hides_nothing="rows are sorted before use",
        ),
        Rule(
            "off_calendar",
            "A bar on a day, or at an hour, when the exchange was closed.",
            "Often a copy of the day before on a holiday. Check data.calendar and data.timezone, or drop the rows.",
        ),
        Rule(
            "off_grid",
            "A bar that starts at another minute of the hour than the market's bars (such as :30 among :00): "
            "it overlaps two of theirs.",
            "Download or resample all symbols on one grid.",
            "hourly",
        ),
        Rule(
            "calendar_gap",
            "Bars that the exchange calendar expects are missing just before this one.",
            "Download the missing span again; look-backs reach across the gap as if it were not there.",
        ),
        Rule(
            "stale",
            "The price has not moved for many bars in a row: forward-filled, halted or not trading yet.",
            "Cut the symbol's history where it truly starts, or ask the vendor for the span again.",
        ),
        Rule(
            "jump",
            "A move against the market that is likelier a bad print (or the first bar of a split) than news, or one "
            "beyond validate_data.jump_return that no split explains: a dividend not adjusted for, or true news.",
            "Look at the bar. For a special dividend take total-return prices or give data.corporate_actions.",
        ),
        Rule(
            "range_spike",
            "The high or the low stands alone, many typical ranges away from the open and the close: often a trade "
            "that was cancelled later.",
            "Compare with another vendor; features made of high and low are off at this bar.",
            "range",
        ),
        Rule(
            "split_like",
            "The price steps between two sessions by a split ratio and stays: a split that is neither adjusted for nor "
            "listed, or one that is listed and not in the prices.",
            "Take split-adjusted prices, or set data.adjustment to none and give data.corporate_actions; where prices "
            "contain the listed splits already, set data.adjustment to split.",
        ),
        Rule(
            "low_coverage",
            "Too few of the symbol's latest expected bars are there and usable (validate_data.min_coverage over "
            "validate_data.coverage_window).",
            "Download the symbol again or take it out of the universe.",
        ),
        Rule(
            "missing_tail",
            "The symbol traded as usual and ends before the others, by more than any gap that it had.",
            "Download its latest bars; a stock that was delisted or taken over ends like this too, and is right.",
            hides_nothing=SEEN_AT_THE_END,
        ),
        Rule(
            "unfinished_bar",
            "The newest bar has less than half of the lowest volume of the symbol's bars before it: its session may "
            "not have been over when it was downloaded, so that its close is not a close.",
            "Drop the bar, or download it again after the close.",
            "volume",
            hides_nothing=SEEN_AT_THE_END,
        ),
    )
}
