"""Written moments become datetime64[us], with what is needed to place them: did they name a zone, a time of day?

Ambiguity is refused, never guessed: day before month or month before day, some stamps with a zone and some without.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from marl_pipeline.data.calendar import exchange_dates, utc_array
from marl_pipeline.data.dataset import TimeArray
from marl_pipeline.errors import UserError

OFFSET = r"(?:Z|UTC|[+-]\d{2}:?\d{2}|\d[+-]\d{2})\s*$"
TIME_OF_DAY = r"\d:\d{2}|T\d{2}"

EPOCH_UNITS = ((1e6, 1e8, 1e10), (1e3, 1e11, 1e13), (1.0, 1e14, 1e16), (1e-3, 1e17, 1e19))
"""Numbers between these bounds count seconds, ms, us and ns since 1970 in UTC (1973 to 2286); microseconds in one."""

DAY_FORMATS = ("%m/%d/%Y", "%d/%m/%Y")
SHAPES = ("", " %H:%M", " %H:%M:%S")


@dataclass(frozen=True)
class Stamps:
    """K parsed moments.

    Attributes:
        moments: [K] datetime64[us]; in UTC if `aware`, else as the clock of an unnamed zone shows them. NaT where
            the input has none.
        aware: the input names its zone (or counts from an epoch, which is in UTC).
    """

    moments: TimeArray
    aware: bool

    @property
    def midnight(self) -> bool:
        """Whether all are exactly midnight: dates rather than moments."""
        known = self.moments[~np.isnat(self.moments)]
        return bool((known == known.astype("datetime64[D]")).all())


def parse_timestamps(values: pd.Series, origin: str) -> Stamps:
    """Reads a column of dates, date-times, texts or numbers.

    Texts are ISO 8601, or slashed or dotted dates whose order is certain, or dates with the month in letters;
    integers are YYYYMMDD or counts since 1970.

    Raises:
        UserError: a value that is no moment (the first one is named), a stamp that is missing, some with a zone
            and some without, or dates that could be read in two ways.
    """
    missing = values.isna()
    if missing.any():
        raise UserError(f"{origin}: column '{values.name}': {_at(missing)} has no timestamp")
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return Stamps(utc_array(values), aware=True)
    if pd.api.types.is_datetime64_dtype(values):
        return Stamps(values.to_numpy().astype("datetime64[us]"), aware=False)
    if pd.api.types.is_bool_dtype(values) or not (pd.api.types.is_numeric_dtype(values) or _textual(values)):
        raise UserError(f"{origin}: column '{values.name}' holds {values.dtype}, not timestamps")
    if pd.api.types.is_numeric_dtype(values):
        return _from_numbers(values, origin)
    texts = values.astype(str).str.strip()
    if texts.str.fullmatch(r"\d{8}|\d{9,19}").all():
        return _from_numbers(texts.astype(np.int64).rename(str(values.name)), origin)
    return _from_texts(texts, origin)


def localise(moments: TimeArray, zone: str, origin: str) -> TimeArray:
    """Clock readings of `zone` as datetime64[us] in UTC.

    Raises:
        UserError: an unknown zone, or a reading that the change to or from summer time repeats or skips.
    """
    try:
        index = pd.DatetimeIndex(moments).tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    except (KeyError, ValueError, OSError):
        raise UserError(
            f"data.timezone: '{zone}' is not a time zone; write one such as UTC or America/New_York"
        ) from None
    lost = np.asarray(index.isna()) & ~np.isnat(moments)
    if lost.any():
        first = pd.Timestamp(moments[int(np.argmax(lost))])
        raise UserError(
            f"{origin}: {first} happens twice or never in {zone} (summer time changes); "
            "write timestamps with their offset"
        )
    return utc_array(index)


def day_labels(stamps: Stamps, zone: str) -> TimeArray | None:
    """[K] datetime64[us] midnight of the days, if the stamps are dates and not moments, else None.

    Dates are: naive ones at midnight, ones at midnight UTC, ones at midnight of the exchange's `zone`.
    """
    if stamps.midnight:
        return stamps.moments
    if stamps.aware:
        local = pd.DatetimeIndex(stamps.moments).tz_localize("UTC").tz_convert(zone).tz_localize(None)
        if bool((local == local.normalize()).all()):
            return exchange_dates(stamps.moments, zone)
    return None


def _from_numbers(values: pd.Series, origin: str) -> Stamps:
    numbers = values.to_numpy(dtype=np.float64)
    if ((numbers >= 1.8e7) & (numbers < 2.2e7)).all():
        days = pd.to_datetime(values.astype(np.int64).astype(str), format="%Y%m%d", errors="coerce")
        _refuse(days.isna(), values, origin)
        return Stamps(days.to_numpy().astype("datetime64[us]"), aware=False)
    inside = np.array([(numbers >= low) & (numbers < high) for _, low, high in EPOCH_UNITS])
    unit = int(np.argmax(inside.sum(axis=1)))  # what most are; the first that is not is the one to name
    _refuse(pd.Series(~inside[unit]), values, origin)
    micros = np.rint(numbers * EPOCH_UNITS[unit][0]).astype(np.int64)
    return Stamps(micros.astype("datetime64[us]"), aware=True)


def _from_texts(texts: pd.Series, origin: str) -> Stamps:
    zoned = texts.str.contains(OFFSET, regex=True) & texts.str.contains(TIME_OF_DAY, regex=True)
    if zoned.any() and not zoned.all():
        kind = ~zoned if zoned.iloc[0] else zoned
        raise UserError(
            f"{origin}: column '{texts.name}': some timestamps name a zone and some do not; {_at(kind)} "
            f"({texts[kind].iloc[0]!r}) differs from the first ({texts.iloc[0]!r})"
        )
    if zoned.any():
        parsed = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
        if parsed.isna().any():
            parsed = pd.to_datetime(texts, format="mixed", utc=True, errors="coerce")
        _refuse(parsed.isna(), texts, origin)
        return Stamps(utc_array(parsed), aware=True)
    parsed = pd.to_datetime(texts, format="ISO8601", errors="coerce")
    if parsed.isna().all():
        parsed = _by_format(texts, origin)
    _refuse(parsed.isna(), texts, origin)
    return Stamps(parsed.to_numpy().astype("datetime64[us]"), aware=False)


def _by_format(texts: pd.Series, origin: str) -> pd.Series:
    """Dates that are not ISO 8601: slashed, dashed or dotted ones with day and month in one order throughout, and
    ones with the month in letters."""
    if texts.str.contains(r"[A-Za-z]{3}", regex=True).all():
        return pd.to_datetime(texts, format="mixed", errors="coerce")
    slashed = texts.str.replace(r"[.-]", "/", n=2, regex=True)
    readings = []
    for day in DAY_FORMATS:
        for shape in SHAPES:
            parsed = pd.to_datetime(slashed, format=day + shape, errors="coerce")
            if parsed.notna().any():
                readings.append(parsed)
    whole = [parsed for parsed in readings if parsed.notna().all()]
    if len(whole) == 2 and not whole[0].equals(whole[1]):
        raise UserError(
            f"{origin}: column '{texts.name}': {texts.iloc[0]!r} may be month first or day first, and no other row "
            f"decides it; write dates as 2024-01-31"
        )
    if whole:
        return whole[0]
    return max(readings, key=lambda parsed: int(parsed.notna().sum()), default=pd.Series(pd.NaT, index=texts.index))


def _refuse(bad: pd.Series, values: pd.Series, origin: str) -> None:
    if bad.any():
        place = int(np.argmax(bad.to_numpy()))
        raise UserError(
            f"{origin}: column '{values.name}': {str(values.iloc[place])!r} in {_at(bad)} is not a timestamp; "
            "write them as 2024-01-31 or 2024-01-31T14:30:00Z"
        )


def _at(mask: pd.Series) -> str:
    return f"row {int(np.argmax(mask.to_numpy())) + 1}"


def _textual(values: pd.Series) -> bool:
    return pd.api.types.is_string_dtype(values) or pd.api.types.is_object_dtype(values)
