from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.data.calendar import in_session
from marl_pipeline.data.panel import build_panel, time_grid
from marl_pipeline.errors import UserError

DAILY = {"frequency": "1Day", "calendar": "XNYS", "adjustment": "total"}


def bars_of(closes: dict[str, list[float]], start: str = "2021-03-01") -> pd.DataFrame:
    """One bar a business day per symbol; NaN leaves the bar out."""
    days = pd.bdate_range(start, periods=max(map(len, closes.values())), tz="UTC").as_unit("us")
    frames = [
        pd.DataFrame(
            {"symbol": s, "timestamp": days[: len(c)], "open": c, "high": c, "low": c, "close": c, "volume": 100.0}
        )
        for s, c in closes.items()
    ]
    bars = pd.concat(frames).dropna(subset=["close"]).reset_index(drop=True)
    return bars.assign(quarantined=False)


def test_bars_land_on_their_row_and_column() -> None:
    panel = build_panel(bars_of({"B": [1.0, 2.0, 3.0], "A": [4.0, np.nan, 6.0]}), **DAILY)
    assert panel.symbols == ("A", "B")
    np.testing.assert_array_equal(panel.close, [[4, 1], [np.nan, 2], [6, 3]])
    np.testing.assert_array_equal(panel.tradable, [[True, True], [False, True], [True, True]])
    np.testing.assert_array_equal(panel.session, [0, 1, 2])
    assert panel.timestamps.dtype == panel.known_at.dtype == np.dtype("datetime64[us]")
    assert panel.known_at[0] == np.datetime64("2021-03-01T21:00:00")
    assert (np.diff(panel.known_at) > np.timedelta64(0)).all()


def test_a_quarantined_bar_is_as_if_missing() -> None:
    bars = bars_of({"A": [1.0, 999.0, 3.0], "B": [1.0, 2.0, 3.0]})
    bars.loc[1, "quarantined"] = True
    panel = build_panel(bars, **DAILY)
    assert np.isnan(panel.close[1, 0])
    assert not panel.tradable[1, 0]


def test_a_stamp_with_only_quarantined_bars_makes_no_row() -> None:
    bars = bars_of({"A": [1.0, 2.0, 3.0], "B": [1.0, 2.0, 3.0]})
    bars.loc[bars["timestamp"] == bars["timestamp"][1], "quarantined"] = True
    assert len(build_panel(bars, **DAILY).timestamps) == 2


def test_one_symbol_is_not_a_universe() -> None:
    with pytest.raises(UserError, match=r"bars hold 1 symbol \(A\); a universe needs 2 or more"):
        build_panel(bars_of({"A": [1.0, 2.0]}), **DAILY)


def test_nothing_left_after_quarantine_says_so() -> None:
    with pytest.raises(UserError, match="every bar is quarantined"):
        build_panel(bars_of({"A": [1.0], "B": [2.0]}).assign(quarantined=True), **DAILY)


def test_bars_outside_any_session_make_no_row() -> None:
    bars = bars_of({"A": [1.0] * 6, "B": [2.0] * 6}, start="2021-04-01")  # the 2nd is Good Friday
    assert len(build_panel(bars, **DAILY).timestamps) == 5
    with pytest.raises(UserError, match=r"none of them is in a session of data\.calendar XNYS"):
        build_panel(bars[bars["timestamp"] == pd.Timestamp("2021-04-02", tz="UTC")], **DAILY)


def hourly(*stamps: tuple[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Symbols and stamps: `number` symbols have a bar at each of the stamps (New York, winter: UTC - 5)."""
    symbol = np.concatenate([np.arange(number) for _, number in stamps])
    stamp = np.concatenate([np.repeat(np.datetime64(text, "us"), number) for text, number in stamps])
    return symbol, stamp


def session(day: str, minute: int, number: int, opening: bool = True) -> list[tuple[str, int]]:
    inner = [(f"2021-03-{day}T{hour}:{minute:02d}", number) for hour in range(15, 21)]
    return ([(f"2021-03-{day}T14:30", number)] if opening else []) + inner


def test_an_odd_stamp_of_one_vendor_does_not_enter_the_grid() -> None:
    regular = session("01", 30, 20)
    symbol, stamps = hourly(*regular, ("2021-03-01T17:10", 1), ("2021-03-01T17:11", 1))
    grid, _ = time_grid(symbol, stamps, "1Hour", "XNYS")
    np.testing.assert_array_equal(grid, np.array([text for text, _ in regular], dtype="datetime64[us]"))


def test_of_two_interleaved_hourly_grids_the_one_with_more_bars_stays() -> None:
    few, many = (np.array(texts) for texts in (session("01", 30, 8, False), session("01", 0, 12, False)))
    symbol = np.concatenate([np.repeat([np.arange(8)], 6, axis=0).ravel(), 8 + np.tile(np.arange(12), 6)])
    stamps = np.concatenate([np.repeat(few[:, 0], 8), np.repeat(many[:, 0], 12)]).astype("datetime64[us]")
    grid, _ = time_grid(symbol, stamps, "1Hour", "XNYS")
    np.testing.assert_array_equal(grid, many[:, 0].astype("datetime64[us]"))
    grid, _ = time_grid(symbol[: 6 * 8], stamps[: 6 * 8], "1Hour", "XNYS")
    np.testing.assert_array_equal(grid, few[:, 0].astype("datetime64[us]"))


def test_the_half_hour_at_the_open_of_a_clock_grid_is_a_row_known_when_the_next_starts() -> None:
    symbol, stamps = hourly(*session("01", 0, 5), *session("02", 0, 5))
    grid, known = time_grid(symbol, stamps, "1Hour", "XNYS")
    assert len(grid) == 14
    assert known[7] == grid[8] == np.datetime64("2021-03-02T15:00")
    assert (known[7:-1] <= grid[8:]).all()


def test_a_change_of_grid_loses_no_session() -> None:
    days = ["01", "02", "03", "04", "05", "08", "09", "10"]
    symbol, stamps = hourly(*(bar for day in days for bar in session(day, 30 if day < "05" else 0, 5)))
    grid, _ = time_grid(symbol, stamps, "1Hour", "XNYS")
    assert len(grid) == 8 * 7


@given(st.integers(0, 1000), st.integers(5, 100))
@settings(max_examples=30, deadline=None)
def test_the_grid_up_to_a_stamp_does_not_depend_on_later_ones(seed: int, known: int) -> None:
    rng = np.random.default_rng(seed)
    start = np.datetime64("2021-03-01T14:00", "us")
    stamps = np.unique(start + rng.integers(0, 400, 300) * np.timedelta64(30, "m"))
    stamps = stamps[in_session(stamps, "1Hour", "XNYS")]
    symbol, stamps = np.repeat(np.arange(4), len(stamps)), np.tile(stamps, 4)
    kept = rng.random(len(stamps)) < 0.7
    symbol, stamps = symbol[kept], stamps[kept]
    cut = start + 4 * known * np.timedelta64(30, "m")
    past = stamps <= cut
    whole, moments = time_grid(symbol, stamps, "1Hour", "XNYS")
    before, earlier = time_grid(symbol[past], stamps[past], "1Hour", "XNYS")
    np.testing.assert_array_equal(whole[whole <= cut], before)
    np.testing.assert_array_equal(moments[whole <= cut], earlier)


def actions_of(*rows: tuple[str, str, str, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["symbol", "ex_date", "kind", "value"])
    return table.assign(ex_date=pd.to_datetime(table["ex_date"]))


def test_a_split_is_carried_forward_from_its_ex_date() -> None:
    bars = bars_of({"A": [10.0, 12.0, 6.0, 7.0], "B": [1.0] * 4})
    actions = actions_of(("A", "2021-03-03", "split", 2.0), ("ZZ", "2021-03-03", "split", 3.0))
    panel = build_panel(bars, **DAILY | {"adjustment": "none"}, corporate_actions=actions)
    np.testing.assert_array_equal(panel.close[:, 0], [10, 12, 12, 14])
    np.testing.assert_array_equal(panel.volume[:, 0], [100, 100, 50, 50])
    np.testing.assert_array_equal(panel.close[:, 1], [1] * 4)


def test_prices_that_contain_splits_are_not_split_again() -> None:
    bars = bars_of({"A": [10.0, 12.0, 12.0], "B": [1.0] * 3})
    actions = actions_of(("A", "2021-03-03", "split", 2.0))
    for adjustment in ("split", "total"):
        panel = build_panel(bars, **DAILY | {"adjustment": adjustment}, corporate_actions=actions)
        np.testing.assert_array_equal(panel.close[:, 0], [10, 12, 12])


def test_a_dividend_is_put_back_into_the_stock() -> None:
    bars = bars_of({"A": [10.0, 10.0, 8.0, 8.8], "B": [1.0] * 4})
    actions = actions_of(("A", "2021-03-03", "dividend", 2.0))
    panel = build_panel(bars, **DAILY | {"adjustment": "split"}, corporate_actions=actions)
    np.testing.assert_allclose(panel.close[:, 0], [10, 10, 10, 11], rtol=1e-15)
    np.testing.assert_array_equal(panel.volume[:, 0], [100] * 4)


def test_a_dividend_on_the_day_of_a_split_is_per_new_share() -> None:
    bars = bars_of({"A": [10.0, 10.0, 4.0], "B": [1.0] * 3})
    actions = actions_of(("A", "2021-03-03", "dividend", 1.0), ("A", "2021-03-03", "split", 2.0))
    panel = build_panel(bars, **DAILY | {"adjustment": "none"}, corporate_actions=actions)
    np.testing.assert_allclose(panel.close[:, 0], [10, 10, 10], rtol=1e-15)


def test_an_ex_date_on_a_closed_day_takes_effect_on_the_next_bar() -> None:
    bars = bars_of({"A": [10.0] * 5 + [5.0], "B": [1.0] * 6})  # Monday to Monday; the ex-date is a Saturday
    panel = build_panel(
        bars, **DAILY | {"adjustment": "none"}, corporate_actions=actions_of(("A", "2021-03-06", "split", 2.0))
    )
    np.testing.assert_array_equal(panel.close[:, 0], [10] * 6)


def test_actions_after_a_bar_do_not_change_it() -> None:
    bars = bars_of({"A": [10.0, 12.0, 6.0, 7.0], "B": [1.0] * 4})
    none = build_panel(bars, **DAILY)
    late = actions_of(("A", "2021-03-04", "split", 2.0), ("B", "2021-03-04", "dividend", 0.5))
    panel = build_panel(bars, **DAILY | {"adjustment": "none"}, corporate_actions=late)
    assert panel.close[:3].tobytes() == none.close[:3].tobytes()


def test_impossible_actions_are_named() -> None:
    bars = bars_of({"A": [10.0] * 4, "B": [1.0] * 4})
    with pytest.raises(UserError, match=r"A 2021-03-03: a dividend of 12 is not below the close before it \(10\)"):
        build_panel(
            bars,
            **DAILY | {"adjustment": "split"},
            corporate_actions=actions_of(("A", "2021-03-03", "dividend", 12.0)),
        )
    with pytest.raises(UserError, match="expected a split or dividend with a positive value, found merger"):
        build_panel(
            bars, **DAILY | {"adjustment": "none"}, corporate_actions=actions_of(("A", "2021-03-03", "merger", 1.0))
        )


def test_membership_is_an_interval_with_both_ends_in() -> None:
    bars = bars_of({"A": [1.0] * 5, "B": [2.0] * 5, "C": [3.0] * 5})
    membership = pd.DataFrame(
        {
            "symbol": ["A", "A", "B"],
            "start": pd.to_datetime(["2021-02-01", "2021-03-05", "2021-03-03"]),
            "end": pd.to_datetime(["2021-03-02", None, None]),
        }
    )
    panel = build_panel(bars, **DAILY, membership=membership)
    np.testing.assert_array_equal(panel.tradable.T.astype(int), [[1, 1, 0, 0, 1], [0, 0, 1, 1, 1], [0] * 5])
    assert np.isfinite(panel.close).all()
    with pytest.raises(UserError, match="membership: none of its 3 rows names a symbol among the bars"):
        build_panel(bars, **DAILY, membership=membership.assign(symbol="ZZ"))
