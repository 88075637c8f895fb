"""Which column of a table of bars is meant by each canonical name, where several may be: a date and a time of day, two
volumes, an adjusted close beside a plain one. What was chosen is said in words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from marl_pipeline.data.dataset import FloatArray
from marl_pipeline.data.spellings import COLUMNS, SPELLINGS, found, plain
from marl_pipeline.data.table import Table, blank_to_null, is_text
from marl_pipeline.errors import UserError

TIME_OF_DAY = r"\d{1,2}:\d{2}(:\d{2}([.,]\d{1,9})?)?( ?[AaPp][Mm])?"


def choose(table: Table, columns: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Which column is meant by each canonical name: those of `data.columns` first, then the layout's, then usual
    spellings; and what was chosen among several, in words.

    Raises:
        UserError: a column named twice, one of `columns` absent, or two candidates for one canonical name.
    """
    names, origin = table.names, table.origin
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{origin}: column '{twice[0]}' stands there twice; keep one")
    given: dict[str, str] = {}
    for theirs, ours in columns.items():
        if ours not in SPELLINGS:
            raise UserError(
                f"data.columns: '{ours}' is none of {', '.join(COLUMNS)}; write {{your column: one of these}}"
            )
        column = _named(theirs, names)
        if column is None:
            raise UserError(f"{origin}: data.columns names '{theirs}', which is not there ({found(table.frame)})")
        if ours in given and ours == "timestamp":
            days, times = _day_and_time(table, [given[ours], column])
            if days is None or times is None:
                raise UserError(f"data.columns: '{given[ours]}' and '{theirs}' are both the {ours}; keep one")
            column = days
        elif ours in given:
            raise UserError(f"data.columns: '{given[ours]}' and '{theirs}' are both the {ours}; keep one")
        given[ours] = column
    for ours, theirs in table.meaning.items():
        if ours not in given and theirs not in given.values():
            given[ours] = theirs
    notes: list[str] = []
    wanted = {ours: spellings for ours, spellings in SPELLINGS.items() if ours not in given}
    free = [name for name in names if name not in given.values()]
    for ours in list(wanted):
        candidates = _candidates(table, ours, free)
        if len(candidates) > 1:
            one = _decide(table, ours, candidates, notes)
            if one is None:
                first, second = candidates[:2]
                raise UserError(
                    f"{origin}: columns '{first}' and '{second}' may both be the {ours}; say which in data.columns, as "
                    f"{{{first}: {ours}}}"
                )
            candidates = [one]
        if candidates:
            given[ours] = candidates[0]
    return {ours: given[ours] for ours in SPELLINGS if ours in given}, notes


def _candidates(table: Table, ours: str, free: list[str]) -> list[str]:
    usual = SPELLINGS[ours]
    found = [name for name in free if plain(name) in usual]
    if found:
        return found
    if ours == "timestamp":
        return [name for name in free if re.fullmatch(r"Unnamed: \d+|index", name) and table.holds_moments(name)][:1]
    if ours == "volume":
        return [
            name
            for name in free
            if re.fullmatch(r"vol(ume)?[ _(]+[A-Za-z]+\)?", name, re.IGNORECASE) and "MA" not in name
        ]
    if ours == "symbol":
        return [name for name in free if plain(name) == "name" and _tickers(table.frame[name])]
    return []


def _decide(table: Table, ours: str, candidates: list[str], notes: list[str]) -> str | None:
    """The one of several columns that is meant, or None."""
    exact = [name for name in candidates if name == ours]
    if ours == "timestamp":
        days, times = _day_and_time(table, candidates)
        if days is not None and times is not None and len(candidates) == 2:
            return days
        counts = [name for name in candidates if table.counts_since_1970(name)]
        if len(counts) == 1 and not exact:
            notes.append(f"column '{counts[0]}' taken as the timestamp: it names the moment in UTC")
            return counts[0]
    if ours == "volume":
        return _decide_volume(table, candidates, notes)
    return exact[0] if exact else None


def _decide_volume(table: Table, candidates: list[str], notes: list[str]) -> str | None:
    """A volume that is zero throughout is none; ticks stand for it then. Of two currencies the one traded counts."""
    traded = [name for name in candidates if not plain(name).startswith("tick")]
    if len(traded) == 1 and len(candidates) == 2:
        ticks = next(name for name in candidates if name not in traded)
        values = table.numbers(traded[0])
        if np.nansum(np.abs(values)) == 0.0:
            notes.append(f"column '{ticks}' taken as the volume: '{traded[0]}' is zero throughout")
            return ticks
        return traded[0]
    exact = [name for name in candidates if plain(name) in ("volume", "vol")]
    if len(exact) == 1:
        return exact[0]
    if all(re.match("vol", name, re.IGNORECASE) for name in candidates):
        notes.append(f"column '{candidates[0]}' taken as the volume, not '{candidates[1]}'")
        return candidates[0]
    return None


def _tickers(values: pd.Series) -> bool:
    return is_text(values) and bool(values.astype("str").str.strip().str.fullmatch(r"[A-Z0-9.\-^=/]{1,12}").all())


def _named(theirs: str, names: list[str]) -> str | None:
    """The column that `data.columns` names; a nameless one is "" or what pandas calls it."""
    if theirs in names:
        return theirs
    if theirs in ("", "index") and names and re.fullmatch(r"Unnamed: \d+", names[0]):
        return names[0]
    stripped = [name for name in names if name.strip() == theirs.strip()]
    return stripped[0] if len(stripped) == 1 else None


def _day_and_time(table: Table, candidates: list[str]) -> tuple[str | None, str | None]:
    """Among columns that may be the timestamp: one of days without a time of day, and one of times of day."""
    times = [name for name in candidates if times_of_day(table.frame[name]) is not None]
    days = [name for name in candidates if name not in times]
    return (days[0] if len(days) == 1 else None), (times[0] if len(times) == 1 else None)


def stamp_column(table: Table, column: str, mapped: Mapping[str, str], notes: list[str]) -> pd.Series:
    """The column of stamps, joined with one of times of day that stands beside it.

    Raises:
        UserError: the column holds times of day only.
    """
    values = table.frame[column]
    beside = [
        name
        for name in table.names
        if name != column and plain(name) in SPELLINGS["timestamp"] and mapped.get(name, "timestamp") == "timestamp"
    ]
    if times_of_day(values) is not None and plain(column) != "timestamp":
        days = [name for name in beside if times_of_day(table.frame[name]) is None]
        if len(days) != 1:
            raise UserError(
                f"{table.origin}: column '{column}' holds times of day without a date; name a column with both in "
                "data.columns"
            )
        return stamp_column(table, days[0], {}, notes)
    for name in beside:
        times = times_of_day(table.frame[name]) if plain(name) != "timestamp" else None
        if times is not None and _whole_days(values):
            notes.append(f"columns '{column}' and '{name}' joined: date and time of day")
            return (_texts(values) + " " + times).rename(column).astype("str")
    return blank_to_null(values)


def _texts(values: pd.Series) -> pd.Series:
    moments = pd.api.types.is_datetime64_any_dtype(values)
    texts: pd.Series = values.dt.strftime("%Y-%m-%d") if moments else values
    return texts.astype("str").str.strip()


def _whole_days(values: pd.Series) -> bool:
    """Whether the stamps name days and no time of day."""
    if pd.api.types.is_datetime64_any_dtype(values):
        return bool((values == values.dt.normalize()).all())
    texts = _texts(values)
    return not bool(texts.str.contains(":").any()) and bool(texts.str.len().max() <= 12)


def times_of_day(values: pd.Series) -> pd.Series | None:
    """The column as HH:MM or HH:MM:SS, if it holds times of day (09:30, 9:30 AM, 093000, 930), else None."""
    if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_bool_dtype(values):
        return None
    if pd.api.types.is_float_dtype(values) or not re.match(r"\s*\d{1,6}(\s*$|:)", str(values.iloc[0])):
        return None
    texts = values.astype("str").str.strip()
    distinct = pd.Series(texts.unique(), dtype="str")
    if not len(distinct) or distinct.isna().any():
        return None
    if distinct.str.fullmatch(TIME_OF_DAY).all():
        return texts
    if not distinct.str.fullmatch(r"\d{1,6}").all() or "time" not in plain(str(values.name)):
        return None  # bare digits under another name are a day (YYMMDD) or a count of days
    width = 4 if int(distinct.str.len().max()) <= 4 and bool((distinct != "0").any()) else 6
    packed = distinct.str.zfill(width)
    if not packed.str.fullmatch(r"([01]\d|2[0-3])([0-5]\d)([0-5]\d)?").all():
        return None
    shown = packed.str[:2] + ":" + packed.str[2:4] + (":" + packed.str[4:6] if width == 6 else "")
    return texts.map(dict(zip(distinct, shown, strict=True))).astype("str")


def adjusted_prices(
    table: Table, chosen: Mapping[str, str], figures: dict[str, FloatArray], notes: list[str]
) -> dict[str, FloatArray]:
    """With an adjusted close mapped to `close`: the adjusted open, high and low where the file has them, else the plain
    ones times adjusted over plain close."""
    theirs = plain(chosen["close"])
    if not theirs.startswith("adj"):
        return figures
    own = {plain(name): name for name in table.names}
    result = dict(figures)
    adjusted = {name: own.get(f"adj{name}", own.get(f"adjusted{name}")) for name in ("open", "high", "low", "volume")}
    plainly = next((own[name] for name in SPELLINGS["close"] if name in own), None)
    ratio = (
        None
        if plainly is None
        else figures["close"] / np.where((values := table.numbers(plainly)) == 0.0, np.nan, values)
    )
    for name in ("open", "high", "low"):
        if name not in figures or plain(chosen[name]).startswith("adj"):
            continue
        column = adjusted[name]
        if column is not None:
            result[name] = table.numbers(column)
            notes.append(f"column '{column}' taken as the {name}, beside '{chosen['close']}'")
        elif ratio is not None:
            result[name] = figures[name] * ratio
            notes.append(f"column '{chosen[name]}' times '{chosen['close']}' over '{plainly}'")
        else:
            raise UserError(
                f"{table.origin}: '{chosen['close']}' is adjusted and '{chosen[name]}' is not, and no plain close "
                f"gives the ratio; map adjusted columns for open, high and low too"
            )
    volume = adjusted["volume"]
    if volume is not None and "volume" in figures:
        result["volume"] = table.numbers(volume)
        notes.append(f"column '{volume}' taken as the volume, beside '{chosen['close']}'")
    return result


def say_unused(
    table: Table, chosen: Mapping[str, str], figures: dict[str, FloatArray], notes: list[str]
) -> dict[str, FloatArray]:
    """Says which columns are not used though they look like an adjusted close, or that there is no volume."""
    if "volume" not in figures:
        notes.append("no column is the volume")
    unused = [
        name for name in table.names if plain(name) in ("adjclose", "adjustedclose") and name not in chosen.values()
    ]
    if unused and not plain(chosen["close"]).startswith("adj"):
        notes.append(f"column '{unused[0]}' is not used; data.columns takes it, as {{{unused[0]}: close}}")
    return figures
