"""The proof of causality for what people bring: every companion in every style of stamp, and features of their own.

Each companion is written to a file whose rows became public at moments that the test knows for itself. Everything that
became public after the close of bar `t` is replaced by other figures; what the data set says up to `t` must be the same
bit for bit, and what it says later must not. The controls plant the faults that this has to find: a date taken for the
moment of its midnight, a month used from the day that it is dated by, releases ignored, a feature one bar ahead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.data import availability, series
from marl_pipeline.data.assemble import assemble
from marl_pipeline.data.companions import Companions, load_companions
from marl_pipeline.data.custom import Bars, CustomFeature, load_custom
from marl_pipeline.data.dataset import Dataset
from marl_pipeline.data.sources.synthetic import synthetic_market
from tests.data.bar_tables import data_params
from tests.end_to_end.test_no_look_ahead import data_differences, small_params

NEW_YORK = "America/New_York"
PARAMS = small_params()


@lru_cache
def bars() -> pd.DataFrame:
    section = PARAMS.data.synthetic.model_copy(update={"symbols": 3, "bars": 330})
    return synthetic_market(section, first_day="2021-01-04").bars.assign(quarantined=False)


def days() -> pd.DatetimeIndex:
    return pd.DatetimeIndex(sorted(bars()["timestamp"].dt.tz_localize(None).unique()))


def close_of(dates: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """16:00 in New York, the latest that the exchange closes on a day."""
    return (dates + pd.Timedelta("16h")).tz_localize(NEW_YORK).tz_convert("UTC")


@dataclasses.dataclass(frozen=True)
class File:
    """A companion as it is written. `public` is when each row became known; `public_by_midnight` is what the fault of
    taking dates for moments would make of it."""

    stamps: list[str]
    public: pd.DatetimeIndex
    released: list[str] | None = None
    lag: str = "1D"


def midnight(zone: str, shown: str) -> Callable[[], File]:
    def made() -> File:
        stamps = days().tz_localize(zone).tz_convert(shown)
        return File([stamp.isoformat() for stamp in stamps], close_of(days()))

    return made


def moments() -> File:
    public = close_of(days()) + pd.Timedelta("30min")
    return File([stamp.isoformat() for stamp in public.tz_convert(NEW_YORK)], public)


def months(style: str, lag: str) -> Callable[[], File]:
    def made() -> File:
        first = pd.date_range("2020-10-01", periods=20, freq="MS")
        released = first + pd.DateOffset(months=1) + pd.Timedelta("12D")
        return File([day.strftime(style) for day in first], close_of(released), None, lag)

    return made


def releases() -> File:
    first = pd.date_range("2020-10-01", periods=20, freq="MS")
    released = first + pd.DateOffset(months=1) + pd.Timedelta("12D")
    revised = first + pd.DateOffset(months=2) + pd.Timedelta("12D")
    both = released.append(revised)
    return File([f"{day:%Y-%m}" for day in first] * 2, close_of(both), [f"{day:%Y-%m-%d}" for day in both], "0min")


def quarters() -> File:
    first = pd.period_range("2020Q3", periods=8, freq="Q")
    released = pd.DatetimeIndex(first.end_time.normalize()) + pd.Timedelta("29D")
    return File([f"{one.year}-Q{one.quarter}" for one in first], close_of(released), None, "29D")


STYLES: dict[str, Callable[[], File]] = {
    "date": lambda: File([f"{day:%Y-%m-%d}" for day in days()], close_of(days())),
    "slashed date": lambda: File([f"{day:%m/%d/%Y}" for day in days()], close_of(days())),
    "integer date": lambda: File([f"{day:%Y%m%d}" for day in days()], close_of(days())),
    "epoch": lambda: File([str(int(day.timestamp())) for day in days()], close_of(days())),
    "midnight UTC": midnight("UTC", "UTC"),
    "midnight New York": midnight(NEW_YORK, NEW_YORK),
    "midnight New York in UTC": midnight(NEW_YORK, "UTC"),
    "midnight Berlin": midnight("Europe/Berlin", "Europe/Berlin"),
    "midnight Berlin in UTC": midnight("Europe/Berlin", "UTC"),
    "midnight Tokyo": midnight("Asia/Tokyo", "Asia/Tokyo"),
    "moment at the end of the day": moments,
    "first of the month": months("%Y-%m-%d", "45D"),
    "month": months("%Y-%m", "14D"),
    "quarter": quarters,
    "released": releases,
}
DAILY = [name for name in STYLES if name not in ("first of the month", "month", "quarter", "released")]
TABLE = {"vix": "regime", "macro": "macro", "sentiment": "sentiment", "benchmark": "benchmark"}


def companions_of(folder: Path, name: str, file: File, after: pd.Timestamp | None) -> Companions:
    """The companion `name` read from its file, the rows that became public after `after` replaced by others."""
    rng = np.random.default_rng(5)
    figures = np.exp(0.2 * rng.standard_normal(len(file.stamps)))
    if after is not None:
        later = np.asarray(file.public > after)
        figures[later] *= np.random.default_rng(6).uniform(1.5, 3.0, int(later.sum()))
    table = pd.DataFrame({"date": file.stamps, "close": figures})
    if file.released is not None:
        table["released"] = file.released
    if name == "sentiment":
        table = pd.concat([table.assign(symbol=symbol) for symbol in bars()["symbol"].unique()])
    if name == "macro":
        table = table.rename(columns={"close": "CPI"})
    path = folder / f"{name}.csv"
    table.to_csv(path, index=False)
    params = data_params(**{name: str(path)}, timezone=NEW_YORK, start="2021-01-04")
    lags = params.availability.model_copy(update={"macro": file.lag, "sentiment": "0min"})
    return load_companions(params.model_copy(update={"availability": lags}), bars())


def dataset_of(
    companions: Companions, custom: tuple[CustomFeature, ...] = (), table: pd.DataFrame | None = None
) -> Dataset:
    return assemble(
        bars() if table is None else table, companions, PARAMS.build_features, frequency="1Day", calendar="XNYS",
        adjustment="split", custom=custom,
    )  # fmt: skip


def differing(
    folder: Path, name: str, file: File, at: tuple[int, ...] = (180, 181, 200, 215)
) -> tuple[set[str], set[str]]:
    """Tables that differ up to any of the bars `at`, and over the whole span, when what came later is replaced."""
    before = dataset_of(companions_of(folder, name, file, None))
    early, ever = set(), set()
    for t in at:
        close = close_of(days()[t : t + 1])[0]
        after = dataset_of(companions_of(folder, name, file, close))
        early |= set(data_differences(before, after, t))
        ever |= set(data_differences(before, after, before.bars))
    return early, ever


CASES = [("macro", style) for style in STYLES]
CASES += [(name, style) for name in ("vix", "sentiment", "benchmark") for style in DAILY]
CASES.remove(("benchmark", "moment at the end of the day"))  # bars: their stamp says which day's they are


@pytest.mark.parametrize(("name", "style"), CASES, ids=[f"{name} by {style}" for name, style in CASES])
def test_what_became_public_after_t_changes_nothing_up_to_t(tmp_path: Path, name: str, style: str) -> None:
    early, ever = differing(tmp_path, name, STYLES[style]())
    assert early == set()
    assert ever == {TABLE[name]}, "the noise reaches the data set"


@pytest.mark.parametrize("style", ["date", "midnight UTC", "midnight New York in UTC", "midnight Berlin", "epoch"])
@pytest.mark.parametrize("name", ["vix", "macro", "sentiment"])
def test_a_date_taken_for_the_moment_of_its_midnight_fails(tmp_path: Path, monkeypatch, name: str, style: str) -> None:
    """The control: the row of a day counts from its midnight (and without the lag of a macro file) on."""
    file = dataclasses.replace(STYLES[style](), lag="0min")
    monkeypatch.setattr(availability, "session_closes", lambda dates, calendar: dates - np.timedelta64(5, "h"))
    early, _ = differing(tmp_path, name, file)
    assert early == {TABLE[name]}


@pytest.mark.parametrize("style", ["first of the month", "month", "quarter"])
def test_a_period_used_from_its_first_day_fails(tmp_path: Path, monkeypatch, style: str) -> None:
    """The control: a month or quarter counts a day after the date that it bears."""
    read = series.read_dates

    def by_the_date(written: pd.Series, params: object, path: str) -> availability.Dates:
        dates = read(written, params, path)
        return availability.Dates(dates.first, "day", dates.first)

    monkeypatch.setattr(series, "read_dates", by_the_date)
    monkeypatch.setattr(availability, "_refuse_short_lag", lambda *_: None)
    early, _ = differing(tmp_path, "macro", dataclasses.replace(STYLES[style](), lag="1D"))
    assert early == {"macro"}


def test_releases_that_are_ignored_fail(tmp_path: Path, monkeypatch) -> None:
    """The control: vintages count from the end of their month instead of their release."""
    told = series.availability
    monkeypatch.setattr(series, "availability", lambda dates, released, *rest: told(dates, None, *rest))
    monkeypatch.setattr(availability, "_refuse_short_lag", lambda *_: None)
    early, _ = differing(tmp_path, "macro", releases())
    assert early == {"macro"}


OWN = """
import numpy as np
from marl_pipeline.data.custom import feature


@feature(look_back=12)
def momentum_11(bars):
    log = np.log(bars.close)
    return log - np.roll(log, 11, axis=0)


@feature(look_back=1)
def rank_of_volume(bars):
    return np.argsort(np.argsort(np.nan_to_num(bars.volume), axis=1), axis=1).astype(float)
"""


def noisy_bars(t: int) -> pd.DataFrame:
    table = bars().copy()
    later = (table["timestamp"] > days()[t].tz_localize("UTC")).to_numpy()
    factor = np.random.default_rng(7).uniform(0.9, 1.1, int(later.sum()))
    for name in ("open", "high", "low", "close"):
        table.loc[later, name] *= factor
    table.loc[later, "volume"] *= factor**9
    return table


def own_columns(dataset: Dataset, custom: tuple[CustomFeature, ...]) -> Dataset:
    count = len(custom)
    return dataclasses.replace(dataset, features=dataset.features[..., -count:])


def test_features_of_ones_own_see_nothing_after_t(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    custom = load_custom(tmp_path / "own.py", ())
    before = own_columns(dataset_of(Companions(), custom), custom)
    for t in (180, 240):
        after = own_columns(dataset_of(Companions(), custom, noisy_bars(t)), custom)
        assert data_differences(before, after, t) == []
        assert "features" in data_differences(before, after, before.bars)


def test_a_feature_of_ones_own_that_was_not_verified_and_sees_the_next_bar_fails() -> None:
    """The control: the value of the whole history is stored as it is."""

    class Unverified(CustomFeature):
        def compute(self, bars: Bars) -> np.ndarray:
            return np.vstack([np.log(bars.close[1:]), np.log(bars.close[-1:])])

    custom = (Unverified("next_close", 1, True, lambda bars: bars.close, "own.py"),)
    before = own_columns(dataset_of(Companions(), custom), custom)
    after = own_columns(dataset_of(Companions(), custom, noisy_bars(200)), custom)
    assert data_differences(before, after, 199) == []
    assert data_differences(before, after, 200) == ["features"]
