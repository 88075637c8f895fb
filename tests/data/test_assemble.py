from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.data.assemble import assemble
from marl_pipeline.data.calendar import expected_grid
from marl_pipeline.data.companions import Companions
from marl_pipeline.data.dataset import Dataset, Panel
from marl_pipeline.errors import UserError
from tests.data.market_panels import PARAMS, random_panel

DAYS = pd.DatetimeIndex(expected_grid("2015-01-05", "2015-10-20", "1Day", "XNYS")).tz_localize("UTC")
NO_COMPANIONS = Companions(
    sectors=None,
    vix=None,
    macro=None,
    sentiment=None,
    benchmark=None,
    benchmark_name="equal weight",
    corporate_actions=None,
    membership=None,
)


def bars_of(seed: int = 0, symbols: int = 4) -> pd.DataFrame:
    panel = random_panel(seed, bars=len(DAYS), symbols=symbols, gaps=0.02)
    columns = {name: getattr(panel, name).ravel() for name in ("open", "high", "low", "close", "volume")}
    table = pd.DataFrame(
        {"symbol": np.tile(panel.symbols, len(DAYS)), "timestamp": np.repeat(DAYS, symbols), **columns}
    )
    return table.dropna(subset=["close"]).assign(quarantined=False).reset_index(drop=True)


def companions_of(seed: int = 0) -> Companions:
    rng = np.random.default_rng(seed)
    known = DAYS + pd.Timedelta("22h")  # after the close: from the next bar on
    count = len(DAYS)
    sentiment = pd.DataFrame(
        {
            "symbol": np.repeat(["S00", "S02"], count),
            "mood": rng.standard_normal(2 * count),
            "available_at": np.tile(known, 2),
        }
    )
    return replace(
        NO_COMPANIONS,
        sectors=pd.DataFrame(
            {"symbol": ["S00", "S01", "S02", "S99"], "sector": ["Tech", "Energy", "Tech", "Utilities"]}
        ),
        vix=pd.DataFrame({"close": 20 * np.exp(0.1 * rng.standard_normal(count)), "available_at": known}),
        macro=pd.DataFrame(
            {"rate": rng.standard_normal(count), "spread": rng.standard_normal(count), "available_at": known}
        ),
        sentiment=sentiment,
        benchmark=pd.DataFrame({"close": np.arange(count) + 100.0, "available_at": DAYS + pd.Timedelta("20h")}),
        benchmark_name="SPY",
    )


def built(bars: pd.DataFrame, companions: Companions) -> Dataset:
    return assemble(bars, companions, PARAMS, frequency="1Day", calendar="XNYS", adjustment="total")


def arrays(dataset: Dataset) -> dict[str, np.ndarray]:
    panel = {field.name: getattr(dataset.panel, field.name) for field in fields(Panel)}
    whole = {field.name: getattr(dataset, field.name) for field in fields(Dataset)}
    return {name: value for name, value in (panel | whole).items() if isinstance(value, np.ndarray)}


def test_every_array_has_the_shape_and_type_that_the_contract_says() -> None:
    dataset = built(bars_of(), companions_of())
    t, n = dataset.bars, 4
    assert dataset.features.shape == (t, n, 23)
    assert dataset.regime_names[-1] == "vix"
    assert dataset.regime.shape == (t, 7)
    assert dataset.macro_names == ("rate_level", "spread_level", "rate_change", "spread_change")
    assert dataset.macro.shape == (t, 4)
    assert dataset.sentiment_names == ("mood",)
    assert dataset.sentiment.shape == (t, n, 1)
    for values in (dataset.features, dataset.regime, dataset.macro, dataset.sentiment):
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    assert dataset.sectors == ("unknown", "Energy", "Tech")
    np.testing.assert_array_equal(dataset.sector, [2, 1, 2, 0])
    assert dataset.benchmark_name == "SPY"
    assert dataset.sessions_per_year == 252.0
    assert (dataset.sentiment[:, [1, 3]] == 0).all()
    assert (np.abs(dataset.sentiment[-20:, 0]).sum(axis=0) > 0).all()


def test_without_companions_the_sets_are_empty_and_the_benchmark_is_the_universe() -> None:
    dataset = built(bars_of(), NO_COMPANIONS)
    assert (dataset.macro.shape[1], dataset.sentiment.shape[2]) == (0, 0)
    assert dataset.sectors == ("unknown",)
    assert dataset.benchmark_name == "equal weight"
    assert dataset.benchmark[0] == 1.0
    close = dataset.panel.close
    both = np.isfinite(close[:2]).all(axis=0)
    if both.all():
        np.testing.assert_allclose(dataset.benchmark[1], (close[1] / close[0]).mean(), rtol=1e-12)


def test_a_companion_row_counts_from_the_bar_at_which_it_was_known() -> None:
    companions = companions_of()
    dataset = built(bars_of(), companions)
    late = replace(
        companions,
        benchmark=pd.DataFrame({"close": np.arange(len(DAYS)) + 100.0, "available_at": DAYS + pd.Timedelta("22h")}),
    )
    on_time, delayed = dataset.benchmark, built(bars_of(), late).benchmark
    assert np.isnan(delayed[0])
    np.testing.assert_array_equal(delayed[1:], on_time[:-1])


@given(st.integers(0, 100), st.integers(1, 190))
@settings(max_examples=12, deadline=None)
def test_no_array_sees_the_future(seed: int, rows: int) -> None:
    """Replaces every bar and companion row after a bar by others and compares up to that bar, bit by bit."""
    bars, companions = bars_of(seed), companions_of(seed)
    dataset = built(bars, companions)
    edge = dataset.panel.known_at[rows - 1]
    last = pd.Timestamp(dataset.panel.timestamps[rows - 1]).tz_localize("UTC")
    other_bars = bars_of(seed + 500)
    other_bars = pd.concat([bars[bars["timestamp"] <= last], other_bars[other_bars["timestamp"] > last]])
    other = companions_of(seed + 500)
    moment = pd.Timestamp(edge).tz_localize("UTC")
    mixed = {}
    for name in ("vix", "macro", "sentiment", "benchmark"):
        before, after = getattr(companions, name), getattr(other, name)
        mixed[name] = pd.concat([before[before["available_at"] <= moment], after[after["available_at"] > moment]])
    actions = pd.DataFrame(
        {"symbol": ["S01"], "ex_date": [last.tz_localize(None) + pd.Timedelta("1D")], "kind": ["split"], "value": [2.0]}
    )
    changed = assemble(
        other_bars.sort_values(["symbol", "timestamp"]),
        replace(companions, **mixed, corporate_actions=actions),
        PARAMS,
        frequency="1Day",
        calendar="XNYS",
        adjustment="none",
    )
    before, after = arrays(dataset), arrays(changed)
    for name in before.keys() - {"sector"}:
        assert before[name][:rows].tobytes() == after[name][:rows].tobytes(), name


def test_too_little_history_says_how_much_is_needed() -> None:
    bars = bars_of()
    short = bars[bars["timestamp"] < DAYS[70]]
    with pytest.raises(UserError, match=r"too little history: 70 bars, and the first row to learn from needs 77"):
        built(short, NO_COMPANIONS)


def test_the_same_input_gives_the_same_bytes() -> None:
    once, again = arrays(built(bars_of(), companions_of())), arrays(built(bars_of(), companions_of()))
    assert {name: value.tobytes() for name, value in once.items()} == {n: v.tobytes() for n, v in again.items()}
