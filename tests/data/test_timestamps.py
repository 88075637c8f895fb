from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.data.timestamps import day_labels, localise, parse_timestamps
from marl_pipeline.errors import UserError


def column(*values: Any, dtype: Any = None) -> pd.Series:
    return pd.Series(list(values), name="when", dtype=dtype)


@pytest.mark.parametrize(
    ("values", "aware"),
    [
        (("2024-01-31 14:30:00", "2024-02-01 00:00:00"), False),
        (("2024-01-31T14:30", "2024-02-01"), False),
        (("2024-01-31T14:30:00Z", "2024-02-01T00:00:00Z"), True),
        (("2024-01-31 09:30:00-05:00", "2024-01-31 20:00:00-04:00"), True),
        ((1706711400, 1706745600), True),
        ((1706711400.0, 1706745600.0), True),
        (("1706711400", "1706745600"), True),
        ((1706711400_000, 1706745600_000), True),
        ((1706711400_000_000_000, 1706745600_000_000_000), True),
        (("01/31/2024 14:30", "02/01/2024 00:00"), False),
        (("31.01.2024 14:30:00", "01.02.2024 00:00:00"), False),
        (("Jan 31, 2024 14:30", "1 Feb 2024"), False),
    ],
)
def test_every_usual_spelling_of_a_moment_is_read(values: tuple[Any, ...], aware: bool) -> None:
    stamps = parse_timestamps(column(*values), "bars.csv")
    assert stamps.aware is aware
    assert stamps.moments.dtype == np.dtype("datetime64[us]")
    assert stamps.moments[0] == np.datetime64("2024-01-31T14:30")
    assert stamps.moments[1] == np.datetime64("2024-02-01T00:00")


@pytest.mark.parametrize("values", [("20240131", "20240201"), (20240131, 20240201), ("2024-01-31", "2024-02-01")])
def test_dates_are_read_as_dates(values: tuple[Any, ...]) -> None:
    stamps = parse_timestamps(column(*values), "bars.csv")
    assert not stamps.aware
    assert stamps.midnight
    assert (stamps.moments == np.array(["2024-01-31", "2024-02-01"], dtype="datetime64[us]")).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("2024-01-31", "yesterday", "never"), "'yesterday' in row 2 is not a timestamp"),
        (("2024-01-31", "2024-02-30"), "'2024-02-30' in row 2"),
        (("01/31/2024", "13/13/2024"), "'13/13/2024' in row 2"),
        (("foo", "bar"), "'foo' in row 1"),
        (("2024-01-31", None), "row 2 has no timestamp"),
        (("2024-01-31T10:00:00Z", "2024-01-31T11:00:00"), "row 2 .* differs from the first"),
        (("03/04/2024", "05/06/2024"), "month first or day first"),
        ((1, 2), "'1' in row 1"),
        ((1706711400, 5), "'5' in row 2"),
        ((True, False), "holds bool, not timestamps"),
    ],
)
def test_what_is_no_moment_is_named_with_its_row(values: tuple[Any, ...], words: str) -> None:
    with pytest.raises(UserError, match=f"bars.csv: column 'when'.*{words}"):
        parse_timestamps(column(*values), "bars.csv")


def test_clock_readings_are_placed_by_the_zone_with_its_summer_time() -> None:
    readings = np.array(["2024-01-31T09:30", "2024-07-01T09:30"], dtype="datetime64[us]")
    expected = np.array(["2024-01-31T14:30", "2024-07-01T13:30"], dtype="datetime64[us]")
    assert (localise(readings, "America/New_York", "bars.csv") == expected).all()


@pytest.mark.parametrize(
    ("reading", "words"), [("2024-11-03T01:30", "happens twice"), ("2024-03-10T02:30", "never happens")]
)
def test_a_reading_that_happens_twice_or_never_is_refused(reading: str, words: str) -> None:
    with pytest.raises(UserError, match=f"{words} in America/New_York"):
        localise(np.array([reading], dtype="datetime64[us]"), "America/New_York", "bars.csv")


def test_a_wrong_zone_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.timezone: 'Mars/Olympus' is not a time zone"):
        localise(np.array(["2024-01-31"], dtype="datetime64[us]"), "Mars/Olympus", "bars.csv")


def test_midnights_of_the_exchange_are_dates_and_other_moments_are_not() -> None:
    midnight = parse_timestamps(column("2024-01-31T00:00:00-05:00", "2024-07-01T00:00:00-04:00"), "x")
    labels = day_labels(midnight, "America/New_York")
    assert labels is not None
    assert (labels == np.array(["2024-01-31", "2024-07-01"], dtype="datetime64[us]")).all()
    assert day_labels(parse_timestamps(column("2024-01-31T15:00:00Z"), "x"), "America/New_York") is None
