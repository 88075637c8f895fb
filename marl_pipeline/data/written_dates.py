"""The readings of dates and times as people and programs write them: each is tried on all texts of a column at once.

A reading counts only if it fits every text; if several fit that mean different moments, none is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from marl_pipeline.data.calendar import utc_array
from marl_pipeline.data.dataset import TimeArray
from marl_pipeline.errors import UserError

ORDERS = ("YMD", "DMY", "MDY")
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0}
"""Microseconds in a unit; ns are a thousand to one."""
EPOCHS = {"s": (1e8, 1.9e9), "ms": (1e11, 1.9e12), "us": (1e14, 1.9e15), "ns": (1e17, 1.9e18)}
"""Counts since 1970 that lie between these are of that unit: 1973 to 2030 in each."""
SEQUENCE = 10
"""Dates that must run in one direction before that tells a year from a day."""
EXCEL = "excel"
EXCEL_DAYS = (15_000.0, 60_000.0)
"""1941 to 2064, in days of a spreadsheet."""

YEARS = (1800, 2200)
"""Years that a market can be of; 0024 is a year that lost its century."""
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH = (
    r"(?P<mon>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? )?"
SEP = r" ?[-/. ] ?"
DAY = r"(?P<d>[0-9]{1,2})(?:st|nd|rd|th)?"

DATE_SHAPES = {
    "year": r"(?P<a>[0-9]{4})[-/.](?P<b>[0-9]{1,2})[-/.](?P<c>[0-9]{1,2})",
    "han": r"(?P<a>[0-9]{4})\x{5e74}(?P<b>[0-9]{1,2})\x{6708}(?P<c>[0-9]{1,2})\x{65e5}",
    "compact": r"(?P<a>[0-9]{4})(?P<b>[0-9]{2})(?P<c>[0-9]{2})",
    "last": r"(?P<a>[0-9]{1,2})[-/. ](?P<b>[0-9]{1,2})[-/. ](?P<c>[0-9]{4})",
    "short": r"(?P<a>[0-9]{1,2})[-/.](?P<b>[0-9]{1,2})[-/.](?P<c>[0-9]{2})",
}
NAMED_SHAPES = (
    rf"{WEEKDAY}{DAY}(?:{SEP}|,)?{MONTH}(?:{SEP}|, ?)?(?P<y>[0-9]{{4}}|[0-9]{{2}})",
    rf"{WEEKDAY}{MONTH}{SEP}{DAY}(?:,? |, ?|{SEP})(?P<y>[0-9]{{4}}|[0-9]{{2}})",
    rf"(?P<y>[0-9]{{4}}){SEP}{MONTH}{SEP}{DAY}",
)
CLOCK = (
    r"(?:(?:[Tt]| ?,? |:|-)(?P<H>[0-9]{1,2})(?::(?P<M>[0-9]{2})(?::(?P<S>[0-9]{2})(?:[.,:](?P<F>[0-9]{1,9}))?)?)?"
    r"(?:[ -]?(?P<P>[AaPp])\.?[Mm]\.?)?)?"
)
PACKED_CLOCK = r"(?:[Tt ](?P<H>[0-9]{2})(?P<M>[0-9]{2})(?P<S>[0-9]{2})?(?:\.?(?P<F>[0-9]{3,6}))?(?P<P>x)?)"
ZONE = r" ?(?P<Z>[Zz]|(?:UTC|GMT)?[+-][0-9]{1,2}(?::?[0-9]{2})?|UTC|GMT|[A-Z][A-Za-z]+/[A-Za-z_/+-]+)?"

DIGITS = {
    8: "%Y%m%d",
    12: "%Y%m%d%H%M",
    14: "%Y%m%d%H%M%S",
    17: "%Y%m%d%H%M%S%f",
}
WRITE = "write dates as 2024-01-31 or 2024-01-31T14:30:00Z"


@dataclass(frozen=True)
class Dates:
    """K distinct texts as moments; the fields are those of `timestamps.Stamps`."""

    moments: TimeArray
    aware: bool
    clock: TimeArray | None = None
    style: str = ""
    period: str | None = None


@dataclass(frozen=True)
class Refused:
    """Why texts are no dates: `reason` with `{0}`, `{1}` for the rows of `places` and `{bad}` for the first of all."""

    reason: str
    places: list[int]


def read_dates(texts: Sequence[str], date_format: str | None = None) -> Dates | Refused:
    """Reads distinct texts; `date_format` is one of `ORDERS`, `UNITS`, `excel` or a pattern such as %d.%m.%Y.

    Raises:
        UserError: `date_format` is none of these.
    """
    if date_format is not None and date_format not in (*ORDERS, *UNITS, EXCEL) and "%" not in date_format:
        raise UserError(
            f"data.date_format: '{date_format}' is none of {', '.join((*ORDERS, *UNITS, EXCEL))} and no pattern such "
            "as %d.%m.%Y %H:%M"
        )
    cells = pa.array(texts, pa.string())
    if date_format is not None and "%" in date_format:
        return _by_pattern(texts, date_format)
    numeric = pc.match_substring_regex(cells, r"^[+-]?[0-9]+(\.[0-9]+)?([eE]\+?[0-9]+)?$")
    if date_format in (*UNITS, EXCEL):
        return _unwritten(texts, numeric) or _counted(texts, date_format)
    if bool(pc.all(numeric).as_py()):
        return _from_numbers(texts)
    return _from_texts(texts, cells, date_format)


def _by_pattern(texts: Sequence[str], pattern: str) -> Dates | Refused:
    try:
        parsed = pd.to_datetime(
            pd.Series(list(texts), dtype="str"), format=pattern, errors="coerce", utc="%z" in pattern
        )
    except ValueError as error:
        raise UserError(f"data.date_format: '{pattern}' is no pattern of a date ({error})") from None
    if parsed.isna().any():
        return _not_one(texts, np.flatnonzero(parsed.isna()), f"as data.date_format '{pattern}' has it")
    index = pd.DatetimeIndex(parsed)
    moments = index.tz_localize(None) if index.tz is not None else index
    return Dates(moments.to_numpy().astype("datetime64[us]"), index.tz is not None, None, pattern)


def _not_one(texts: Sequence[str], places: Any, why: str = "") -> Refused:
    bad = [int(place) for place in places]
    shown = repr(texts[bad[0]]).replace("{", "{{").replace("}", "}}")
    return Refused(f"{shown} in {{bad}} is not a timestamp{' ' if why else ''}{why}; {WRITE}", bad[:1])


def _unwritten(texts: Sequence[str], numeric: Any) -> Refused | None:
    places = np.flatnonzero(~np.asarray(numeric))
    return _not_one(texts, places, "counted since a day") if len(places) else None


# numbers ---------------------------------------------------------------------------------------------------------


def _from_numbers(texts: Sequence[str]) -> Dates | Refused:
    """YYYYMMDD and longer, or counts since 1970 of one unit; months (YYYYMM) and years where all rows are such."""
    if all(text.endswith(".0") for text in texts):
        texts = [text.removesuffix(".0") for text in texts]
    if any("e" in text or "E" in text for text in texts):
        return _not_one(texts, [next(i for i, text in enumerate(texts) if "e" in text.lower())], "(digits are lost)")
    lengths = {len(text) for text in texts}
    if len(lengths) == 1 and (length := lengths.pop()) in (*DIGITS, 10, 6, 4):
        calendar = _packed(texts, length)
        if isinstance(calendar, (Dates, Refused)):
            return calendar
    numbers = np.array([float(text) for text in texts])
    inside = {unit: (numbers >= low) & (numbers < high) for unit, (low, high) in EPOCHS.items()}
    unit = max(inside, key=lambda name: int(inside[name].sum()))
    if inside[unit].any():
        places = np.flatnonzero(~inside[unit])
        if len(places):
            return _not_one(texts, places, f"in {unit} since 1970 as most rows are (data.date_format says which)")
        return _counted(texts, unit)
    days = (numbers >= EXCEL_DAYS[0]) & (numbers < EXCEL_DAYS[1])
    if days.all():
        return Refused(
            f"{texts[0]} in {{0}} looks like the day count of a spreadsheet; set data.date_format to excel, or {WRITE}",
            [0],
        )
    return _not_one(texts, [0] if not days.any() else np.flatnonzero(~days))


def _packed(texts: Sequence[str], length: int) -> Dates | Refused | None:
    """Dates as digits without marks; None if the digits are no calendar's."""
    if length == 4:
        years = np.array([int(text) for text in texts])
        if ((years < 1800) | (years > 2200)).any():
            return None
        return Dates((years - 1970).astype("datetime64[Y]").astype("datetime64[us]"), False, None, "", "year")
    if length == 6:
        months, days = (_strptime(texts, pattern) for pattern in ("%Y%m", "%y%m%d"))
        if months is not None and days is not None:
            return Refused(
                f"'{texts[0]}' in {{0}} may be YYYYMM or YYMMDD; set data.date_format to %Y%m or %y%m%d", [0]
            )
        if months is not None and 1800 <= int(texts[0][:4]) <= 2200:
            return Dates(months, False, None, "", "month")
        return None if days is None else Dates(days, False, None, "%y%m%d")
    if length == 10:
        hours = _strptime(texts, "%Y%m%d%H") if all(text[:2] in ("19", "20") for text in texts) else None
        return None if hours is None else Dates(hours, False, None, "%Y%m%d%H")
    moments = _strptime(texts, DIGITS[length])
    if moments is not None and all("1800" <= text[:4] <= "2200" for text in texts):
        return Dates(moments, False)
    if length == 8 and all("1800" <= text[:4] <= "2200" for text in texts):
        valid = pd.to_datetime(pd.Series(list(texts)), format="%Y%m%d", errors="coerce")
        return _not_one(texts, np.flatnonzero(valid.isna()))
    return None


def _strptime(texts: Sequence[str], pattern: str) -> TimeArray | None:
    parsed = pd.to_datetime(pd.Series(list(texts), dtype="str"), format=pattern, errors="coerce")
    return None if parsed.isna().any() else parsed.to_numpy().astype("datetime64[us]")


def _counted(texts: Sequence[str], unit: str) -> Dates:
    """Counts since 1970 in UTC, or days of a spreadsheet (on the clock of its writer)."""
    if unit == EXCEL:
        seconds = np.rint(np.array([float(text) for text in texts]) * 86_400.0).astype(np.int64)
        base = np.datetime64("1899-12-30", "us")
        return Dates(base + (seconds * 1_000_000).astype("timedelta64[us]"), False, None, EXCEL)
    factor = UNITS[unit]
    if all(text.lstrip("+-").isdigit() for text in texts):
        counts = np.array([int(text) for text in texts], dtype=np.int64)
        micros = counts * factor if factor else counts // 1000
    else:
        values = np.array([float(text) for text in texts])
        micros = np.rint(values * factor if factor else values / 1000.0).astype(np.int64)
    return Dates(micros.astype("datetime64[us]"), True, None, unit)


# texts -----------------------------------------------------------------------------------------------------------


def _from_texts(texts: Sequence[str], cells: Any, order: str | None) -> Dates | Refused:
    period = _periods(texts, cells)
    if period is not None:
        return period
    best: Refused | None = None
    fewest = len(texts) + 1
    for name, fields in _shapes(cells):
        matched = np.asarray(pc.is_valid(fields))
        if matched.all():
            return _dated(name, fields, texts, order)
        misses = np.flatnonzero(~matched)
        if len(misses) < fewest:
            fewest, best = len(misses), _not_one(texts, misses, _otherwise(cells, misses, matched))
    return best if best is not None else _not_one(texts, [0])


def _otherwise(cells: Any, misses: Any, matched: Any) -> str:
    """Says that a text that breaks the shape of the others is a date of another shape."""
    if not matched.any():
        return ""
    odd = cells.take(pa.array(misses[:1]))
    other = any(bool(pc.is_valid(fields)[0].as_py()) for _, fields in _shapes(odd))
    return "written as the other rows are" if other else ""


def _shapes(cells: Any) -> Iterable[tuple[str, Any]]:
    for name, shape in DATE_SHAPES.items():
        clocks = (CLOCK, PACKED_CLOCK) if name == "compact" else (CLOCK,)
        for clock in clocks:
            yield name, pc.extract_regex(cells, f"^{shape}{clock}{ZONE}$")
    yield "named", _named(cells)


def _named(cells: Any) -> Any:
    """Dates with the month in letters, each row in its own order of the parts."""
    found = [pc.extract_regex(cells, f"^(?i:{shape}){CLOCK}{ZONE}$") for shape in NAMED_SHAPES]
    names = ("d", "mon", "y", "H", "M", "S", "F", "P", "Z")
    columns = [pc.coalesce(*(pc.struct_field(fields, name) for fields in found)) for name in names]
    valid = pc.is_valid(columns[0])
    return pc.if_else(valid, pc.make_struct(*columns, field_names=list(names)), pa.scalar(None))


def _periods(texts: Sequence[str], cells: Any) -> Dates | None:
    """Months and quarters: 2020-12, 12/2020, 2020M12, Dec 2020, 2020-Q4, Q4 2020."""
    shapes: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("month", r"^(?P<y>[0-9]{4})[-/.]?[Mm]?(?P<m>[0-9]{2})$", lambda f: _int(f, "m")),
        ("month", r"^(?P<m>[0-9]{1,2})[-/.](?P<y>[0-9]{4})$", lambda f: _int(f, "m")),
        ("month", rf"^(?i:{MONTH})[-/. ](?P<y>[0-9]{{4}})$", _month),
        ("quarter", r"^(?P<y>[0-9]{4})[-/. ]?[Qq](?P<q>[1-4])$", lambda f: _int(f, "q") * 3 - 2),
        ("quarter", r"^[Qq](?P<q>[1-4])[-/. ](?P<y>[0-9]{4})$", lambda f: _int(f, "q") * 3 - 2),
    )
    for kind, pattern, month in shapes:
        fields = pc.extract_regex(cells, pattern)
        if fields.null_count == 0:
            months = month(fields)
            if ((months >= 1) & (months <= 12)).all():
                return Dates(_day(_int(fields, "y"), months, np.ones(len(texts), dtype=np.int64)), False, period=kind)
    return None


def _int(fields: Any, name: str, missing: str = "0") -> Any:
    text = pc.fill_null(pc.struct_field(fields, name), "")
    return pc.cast(pc.if_else(pc.equal(text, ""), missing, text), pa.int64()).to_numpy(zero_copy_only=False)


def _month(fields: Any) -> Any:
    short = pc.utf8_slice_codeunits(pc.utf8_lower(pc.struct_field(fields, "mon")), 0, 3)
    return np.asarray(pc.index_in(short, value_set=pa.array(MONTHS)).to_numpy(zero_copy_only=False)) + 1


def _day(year: Any, month: Any, day: Any) -> TimeArray:
    """[K] datetime64[us], NaT where the calendar has no such day."""
    fits = (year >= YEARS[0]) & (year <= YEARS[1]) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    months = ((np.where(fits, year, 1970) - 1970) * 12 + np.where(fits, month, 1) - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (np.where(fits, day, 1) - 1).astype("timedelta64[D]")
    fits &= days.astype("datetime64[M]") == months
    return np.where(fits, days.astype("datetime64[us]"), np.datetime64("NaT", "us"))


def _century(year: Any, digits: Any) -> Any:
    """Two digits mean 1969 to 2068, as POSIX has it."""
    return np.where(digits <= 2, np.where(year >= 69, 1900 + year, 2000 + year), year)


def _dated(shape: str, fields: Any, texts: Sequence[str], order: str | None) -> Dates | Refused:
    time, clock_fits = _time_of_day(fields)
    if not clock_fits.all():
        return _not_one(texts, np.flatnonzero(~clock_fits))
    if shape == "named":
        year = pc.struct_field(fields, "y")
        digits = pc.utf8_length(year).to_numpy(zero_copy_only=False)
        days = _day(_century(_int(fields, "y"), digits), _month(fields), _int(fields, "d"))
        return _finish(days, time, fields, texts, "")
    a, b, c = (_int(fields, name) for name in "abc")
    if shape in ("year", "han", "compact"):
        if order is not None and order != "YMD":
            return _not_one(texts, [0], f"as data.date_format '{order}' has it")
        return _finish(_day(a, b, c), time, fields, texts, "")
    two = np.full(len(texts), 2)
    readings = {"DMY": _day(c, b, a), "MDY": _day(c, a, b)}
    if shape == "short":
        years = _century(c, two)
        readings = {"DMY": _day(years, b, a), "MDY": _day(years, a, b)}
        if bool(pc.all(pc.equal(pc.utf8_length(pc.struct_field(fields, "a")), 2)).as_py()):
            readings["YMD"] = _day(_century(a, two), b, c)
    if order is not None:
        readings = {name: days for name, days in readings.items() if name == order}
        if not readings:
            return _not_one(texts, [0], f"as data.date_format '{order}' has it")
    whole = {name: days for name, days in readings.items() if not np.isnat(days).any()}
    if "YMD" in whole and len(whole) > 1:
        whole = _in_sequence(whole)
    if not whole:
        return _mixed(readings, texts)
    first = next(iter(whole.values()))
    if any((days != first).any() for days in whole.values()):
        return _undecided(whole, texts)
    name = next(iter(whole))
    return _finish(whole[name], time, fields, texts, name if len(whole) == 1 else "")


def _in_sequence(whole: dict[str, TimeArray]) -> dict[str, TimeArray]:
    """Of two-digit readings with the year first or last, those in which the dates first appear in one direction, if the
    dates are many and some readings jump to and fro."""
    steady = {
        name: days
        for name, days in whole.items()
        if (np.diff(days) > np.timedelta64(0)).all() or (np.diff(days) < np.timedelta64(0)).all()
    }
    few = len(next(iter(whole.values()))) < SEQUENCE
    return whole if few or not steady else steady


def _mixed(readings: dict[str, TimeArray], texts: Sequence[str]) -> Refused:
    """No order fits all rows: if one row needs one and one the other, they are mixed."""
    for place in np.flatnonzero(np.logical_and.reduce([np.isnat(days) for days in readings.values()])):
        return _not_one(texts, [place])
    names = list(readings)
    first, second = (int(np.argmax(np.isnat(readings[name]))) for name in names[:2])
    # `first` cannot be read in the first order, so it is in the second
    return Refused(
        f"'{texts[second]}' in {{1}} can only be {_words(names[0])} first and '{texts[first]}' in {{0}} only "
        f"{_words(names[1])} first; write all dates in one order",
        [first, second],
    )


def _undecided(whole: dict[str, TimeArray], texts: Sequence[str]) -> Refused:
    names = list(whole)
    base = whole[names[0]]
    differs = np.logical_or.reduce([days != base for days in whole.values()])
    place = int(np.argmax(differs))
    readings = " or ".join(f"{whole[name][place].astype('datetime64[D]')} ({name})" for name in names)
    orders = " or ".join(f"{_words(name)} first" for name in reversed(names))
    return Refused(
        f"'{texts[place]}' in {{0}} may be {orders}, {readings}, and no other row decides it; set data.date_format to "
        f"{' or '.join(names)}",
        [place],
    )


def _words(order: str) -> str:
    return {"D": "day", "M": "month", "Y": "year"}[order[0]]


def _time_of_day(fields: Any) -> tuple[Any, Any]:
    """[K] timedelta64[us] since midnight and whether it is a time of day."""
    hour, minute, second = (_int(fields, name) for name in "HMS")
    half = pc.utf8_lower(pc.fill_null(pc.struct_field(fields, "P"), ""))
    named = np.asarray(pc.not_equal(half, "").to_numpy(zero_copy_only=False))
    late = np.asarray(pc.equal(half, "p").to_numpy(zero_copy_only=False))
    fits = (hour <= 23) & (minute <= 59) & (second <= 59) & (~named | ((hour >= 1) & (hour <= 12)))
    bare = pc.and_(
        pc.not_equal(pc.fill_null(pc.struct_field(fields, "H"), ""), ""),
        pc.equal(pc.fill_null(pc.struct_field(fields, "M"), ""), ""),
    )
    fits &= named | ~np.asarray(bare.to_numpy(zero_copy_only=False))  # "2024-01-31 14" is no time without am or pm
    hour = np.where(named, hour % 12 + 12 * late, hour)
    fraction = pc.fill_null(pc.struct_field(fields, "F"), "")
    micros = pc.utf8_slice_codeunits(pc.utf8_rpad(fraction, 6, "0"), 0, 6)
    total = ((hour * 60 + minute) * 60 + second) * 1_000_000
    return (total + pc.cast(micros, pa.int64()).to_numpy(zero_copy_only=False)).astype("timedelta64[us]"), fits


def _finish(days: TimeArray, time: Any, fields: Any, texts: Sequence[str], style: str) -> Dates | Refused:
    if np.isnat(days).any():
        return _not_one(texts, np.flatnonzero(np.isnat(days)))
    clock: TimeArray = days + time
    zones = pc.fill_null(pc.struct_field(fields, "Z"), "")
    named = np.asarray(pc.not_equal(zones, "").to_numpy(zero_copy_only=False))
    if not named.any():
        return Dates(clock, False, None, style)
    if not named.all():
        odd = int(np.argmax(~named if named[0] else named))
        return Refused(
            f"some timestamps name a zone and some do not; {{0}} ('{texts[odd]}') differs from the first "
            f"('{texts[0]}')",
            [odd],
        )
    moments = clock.copy()
    coded = pc.dictionary_encode(zones)
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    codes = np.asarray(coded.indices.to_numpy(zero_copy_only=False))
    for index, zone in enumerate(coded.dictionary.to_pylist()):
        chosen = codes == index
        placed = _in_utc(clock[chosen], zone)
        if placed is None:
            return _not_one(texts, np.flatnonzero(chosen), f"(zone {zone})")
        moments[chosen] = placed
    return Dates(moments, True, clock, style)


def _in_utc(clock: TimeArray, zone: str) -> TimeArray | None:
    """Readings of a written zone in UTC: GMT+0100 is one hour ahead of Greenwich, as +01:00 is."""
    if "/" in zone:
        try:
            index = pd.DatetimeIndex(clock).tz_localize(ZoneInfo(zone)).tz_convert("UTC").tz_localize(None)
        except (KeyError, ValueError, OSError):
            return None
        return utc_array(index)
    text = zone.upper().removeprefix("UTC").removeprefix("GMT")
    if text in ("", "Z"):
        return clock
    digits = text[1:].replace(":", "").rjust(2, "0")
    digits = digits if len(digits) == 4 else digits.rjust(4, "0") if len(digits) == 3 else f"{digits}00"
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 15 or minutes > 59:
        return None
    offset = np.timedelta64((hours * 60 + minutes) * (-1 if text[0] == "-" else 1), "m")
    moments: TimeArray = clock - offset.astype("timedelta64[us]")
    return moments
