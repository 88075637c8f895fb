"""Prices as traded, and dividends and splits as cash and shares: known answers, counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.data.calendar import schedule
from marl_pipeline.data.dataset import Panel
from marl_pipeline.data.panel import build_panel
from marl_pipeline.evaluation.units import Units, corporate_events, units_of, with_traded_units

DAYS = schedule("XNYS").session[7812:7820]
RAW = np.array([100.0, 104.0, 102.0, 51.0, 52.0, 50.0, 49.0, 50.0])
"""Split two for one before the fourth day; a dividend of 2 goes off before the sixth."""
MARKET = {"frequency": "1Day", "calendar": "XNYS"}


def actions() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "symbol": ["A", "A", "Z"],
            "ex_date": pd.DatetimeIndex(DAYS[[3, 5, 2]]).tz_localize("UTC"),
            "kind": ["split", "dividend", "split"],
            "value": [2.0, 2.0, 7.0],
        }
    )


def panel_of(close: np.ndarray, adjustment: str) -> Panel:
    tables = []
    for symbol, prices in (("A", close), ("B", np.full(8, 20.0))):
        columns = dict.fromkeys(("open", "high", "low", "close"), prices)
        stamps = pd.DatetimeIndex(DAYS).tz_localize("UTC")
        tables.append(
            pd.DataFrame({"symbol": symbol, "timestamp": stamps, **columns, "volume": 1e6, "quarantined": False})
        )
    return build_panel(
        pd.concat(tables, ignore_index=True), adjustment=adjustment, corporate_actions=actions(), **MARKET
    )


def both() -> list[tuple[str, Panel, Units]]:
    split = np.where(np.arange(8) < 3, RAW / 2.0, RAW)
    made = []
    for adjustment, close in (("none", RAW), ("split", split)):
        panel = panel_of(close, adjustment)
        units = units_of(panel, actions(), adjustment=adjustment, **MARKET)
        assert units is not None
        made.append((adjustment, panel, units))
    return made


def test_the_price_as_traded_is_the_one_that_stood_on_the_tape() -> None:
    for adjustment, panel, units in both():
        np.testing.assert_allclose(panel.close[:, 0] * units.traded_over_panel[:, 0], RAW, err_msg=adjustment)
        np.testing.assert_array_equal(units.traded_over_panel[:, 1], 1.0)


def test_a_fill_shows_price_and_shares_as_traded() -> None:
    for _, panel, units in both():
        price = panel.close[6, 0]
        fills = pd.DataFrame(
            {"bar": [6], "symbol": ["A"], "shares": [980.0 / price], "price": [price], "notional": [980.0]}
        )
        table = with_traded_units(fills, panel, units)
        assert list(table.columns) == ["bar", "symbol", "shares", "price", "price_traded", "shares_traded", "notional"]
        assert table["price_traded"].iloc[0] == pytest.approx(49.0)
        assert table["shares_traded"].iloc[0] == pytest.approx(20.0)


def test_a_split_appears_in_shares_and_a_dividend_in_cash() -> None:
    """10,200 in A at 102 are 100 shares, 200 after the split; at 52 they are worth 10,400 and receive 400."""
    equity = pd.DataFrame(
        {"seed": 3, "window": 0, "bar": np.arange(8), "equity": 20_400.0, "weight:A": 0.5, "weight:B": 0.5}
    )
    equity.loc[4, "weight:A"] = 10_400 / 20_400
    for adjustment, panel, units in both():
        events = corporate_events(equity, panel, units)
        assert events["kind"].tolist() == ["split", "dividend"], adjustment
        assert events["timestamp"].tolist() == [pd.Timestamp(DAYS[3]), pd.Timestamp(DAYS[5])]
        np.testing.assert_allclose(events["shares_before"], [100.0, 200.0])
        np.testing.assert_allclose(events["shares_after"], [200.0, 200.0])
        np.testing.assert_allclose(events["cash"], [0.0, 400.0])
        np.testing.assert_allclose(events["value"], [2.0, 2.0])


def test_what_a_window_sold_at_its_end_receives_nothing() -> None:
    _, panel, units = both()[0]
    equity = pd.DataFrame({"seed": 0, "window": [0] * 5 + [1] * 3, "bar": np.arange(8), "equity": 1e4, "weight:A": 0.5})
    assert corporate_events(equity.assign(**{"weight:B": 0.0}), panel, units)["kind"].tolist() == ["split"]


def test_prices_that_contain_their_dividends_do_not_tell() -> None:
    panel = panel_of(RAW, "total")
    assert units_of(panel, actions(), adjustment="total", **MARKET) is None
    assert units_of(panel, None, adjustment="split", **MARKET) is None
    fills = pd.DataFrame({"bar": [1], "symbol": ["A"], "price": [1.0], "notional": [1.0]})
    assert with_traded_units(fills, panel, None)["price_traded"].isna().all()
