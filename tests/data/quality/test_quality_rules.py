"""Every rule finds what is planted, says nothing about a clean market, and needs no future."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marl_pipeline.config import ValidateDataParams, load_params
from marl_pipeline.data.calendar import schedule
from marl_pipeline.data.quality import QualityResult, check, clean
from marl_pipeline.data.quality.catalogue import RULES
from marl_pipeline.data.quality.moves import _trailing_mean
from marl_pipeline.data.quality.report import build_report
from marl_pipeline.errors import UserError

PARAMS = load_params().validate_data
PRICES = ["open", "high", "low", "close"]
COLUMNS = [*PRICES, "volume"]


def with_severity(**severity: str) -> ValidateDataParams:
    return PARAMS.model_copy(update={"severity": {**PARAMS.severity, **severity}})


def stamps(frequency: str, bars: int, phase: int = 30) -> np.ndarray:
    sessions = schedule("XNYS")
    start = np.searchsorted(sessions.session, np.datetime64("2021-03-15"))
    if frequency == "1Day":
        return sessions.session[start : start + bars]
    opens, closes = sessions.open[start : start + bars], sessions.close[start : start + bars]
    whole = opens.astype("datetime64[h]").astype("datetime64[us]") + np.timedelta64(phase, "m")
    inner = (whole[:, None] + np.arange(1 if phase <= 30 else 0, 9) * np.timedelta64(1, "h")).ravel()
    inner = inner[inner < np.repeat(closes, len(inner) // len(closes))]
    return np.unique(np.concatenate([opens, inner]))[:bars]


def market(symbols: int = 6, bars: int = 150, frequency: str = "1Day", seed: int = 0, phase: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    grid = stamps(frequency, bars, phase)
    frames = []
    for number in range(symbols):
        close = 50.0 * np.exp(np.cumsum(rng.normal(0.0, 0.012, len(grid))))
        opening = np.concatenate([close[:1], close[:-1]]) * np.exp(rng.normal(0.0, 0.003, len(grid)))
        wick = np.exp(np.abs(rng.normal(0.0, 0.004, (2, len(grid)))))
        frames.append(
            pd.DataFrame(
                {
                    "symbol": f"S{number}",
                    "timestamp": pd.DatetimeIndex(grid).tz_localize("UTC"),
                    "open": opening,
                    "high": np.maximum(opening, close) * wick[0],
                    "low": np.minimum(opening, close) / wick[1],
                    "close": close,
                    "volume": rng.lognormal(12.0, 0.3, len(grid)),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def run(bars: pd.DataFrame, frequency: str = "1Day", adjustment: str = "total", params=PARAMS) -> QualityResult:
    return check(bars, calendar="XNYS", frequency=frequency, adjustment=adjustment, params=params)


def hits(result: QualityResult, rule: str) -> list[tuple[str, pd.Timestamp]]:
    found = result.findings[result.findings["rule"] == rule]
    return list(zip(found["symbol"], found["timestamp"], strict=True))


def at(bars: pd.DataFrame, row: int) -> tuple[str, pd.Timestamp]:
    return bars["symbol"][row], bars["timestamp"][row]


@pytest.mark.parametrize(("frequency", "phase"), [("1Day", 0), ("1Hour", 30), ("1Hour", 0)])
@pytest.mark.parametrize("seed", range(3))
def test_a_clean_market_has_no_findings(frequency: str, phase: int, seed: int) -> None:
    bars = market(frequency=frequency, phase=phase, seed=seed, bars=400)
    result = run(bars, frequency)
    assert result.findings.empty, result.findings.head()
    assert result.quarantine.empty
    assert not clean(bars, result.quarantine)["quarantined"].any()


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_empty_or_infinite_value_is_found(column: str, value: float) -> None:
    bars = market()
    bars.loc[200, column] = value
    result = run(bars)
    assert hits(result, "missing_value") == [at(bars, 200)]
    assert column in result.findings["detail"].iloc[0]


def test_a_column_that_a_symbol_fills_only_later_is_not_missing_before() -> None:
    bars = market()
    bars.loc[:59, ["open", "high", "low", "volume"]] = np.nan
    bars.loc[80, "volume"] = np.nan
    assert hits(run(bars), "missing_value") == [at(bars, 80)]


def test_a_typical_move_is_the_mean_of_the_earlier_bars_of_the_symbol() -> None:
    rng = np.random.default_rng(0)
    symbol = np.repeat([0, 1, 2], [100, 15, 200])
    values = np.where(rng.random(315) < 0.1, np.nan, rng.normal(0.0, 1.0, 315))
    expected = pd.Series(values).groupby(symbol).transform(lambda v: v.rolling(60, min_periods=20).mean().shift())
    np.testing.assert_allclose(_trailing_mean(values, symbol)[1:100], expected[1:100], atol=1e-8)
    np.testing.assert_allclose(_trailing_mean(values, symbol)[116:], expected[116:], atol=1e-8)


def test_bad_prices_and_volumes_are_found() -> None:
    bars = market()
    bars.loc[20, PRICES] = -1.0
    bars.loc[40, "low"] = 0.0
    bars.loc[60, "high"] = bars.loc[60, "low"] * 0.99
    bars.loc[80, "volume"] = -5.0
    bars.loc[100, "volume"] = 0.0
    result = run(bars)
    assert hits(result, "non_positive_price") == [at(bars, 20), at(bars, 40)]
    assert hits(result, "ohlc_inconsistent") == [at(bars, 60)]
    assert hits(result, "negative_volume") == [at(bars, 80)]
    assert hits(result, "zero_volume") == [at(bars, 100)]
    assert set(result.quarantine["reason"]) == {"non_positive_price", "ohlc_inconsistent", "negative_volume"}


def test_rounding_to_single_precision_is_not_inconsistent() -> None:
    bars = market()
    bars[PRICES] = bars[PRICES].astype(np.float32).astype(np.float64) * (1 + 1e-7)
    bars["high"] /= 1 + 2e-7
    assert run(bars).findings.empty


def test_of_duplicate_rows_an_incomplete_one_does_not_stand() -> None:
    bars = market()
    copy = bars.loc[[30, 70]].assign(close=[1.0, 2.0], high=[np.nan, -1.0])
    table = pd.concat([bars, copy], ignore_index=True)
    result = run(table)
    assert hits(result, "duplicate") == [at(bars, 30), at(bars, 70)]
    assert set(result.findings["rule"]) == {"duplicate", "out_of_order"}, "a dropped row is judged by nothing else"
    pd.testing.assert_frame_equal(clean(table, result.quarantine).drop(columns="quarantined"), bars)
    assert not clean(table, result.quarantine)["quarantined"].any()


def test_of_complete_duplicate_rows_the_last_stands_and_conflicts_are_counted() -> None:
    bars = market()
    correction = bars.loc[[30]].assign(close=bars.loc[30, "close"] * 1.001)
    table = pd.concat([bars, bars.loc[[70]], correction], ignore_index=True)
    result = run(table)
    assert sorted(hits(result, "duplicate")) == [at(bars, 30), at(bars, 70)]
    assert clean(table, result.quarantine)["close"][30] == correction["close"].iloc[0]
    report = build_report(result, PARAMS, calendar="XNYS", frequency="1Day", adjustment="total")
    totals = report["totals"]
    assert (totals["rows"], totals["bars"], totals["dropped_rows"], totals["conflicting_rows"]) == (902, 900, 2, 1)
    assert totals["unused_share"] == pytest.approx(2 / 902, abs=1e-6)
    assert report["summary"][-1].startswith("2 of 902 rows (0.22%) are not used: 2 dropped as duplicates (1 of them")


def test_rows_out_of_order_are_found_and_sorted() -> None:
    bars = market()
    table = bars.iloc[[*range(10), 11, 10, *range(12, len(bars))]].reset_index(drop=True)
    result = run(table)
    assert hits(result, "out_of_order") == [at(bars, 10)]
    pd.testing.assert_frame_equal(clean(table, result.quarantine).drop(columns="quarantined"), bars)


def test_a_bar_on_a_holiday_is_hidden_and_the_next_one_is_not_a_gap() -> None:
    bars = market()
    holiday = bars.loc[[60]].assign(timestamp=pd.Timestamp("2021-05-31", tz="UTC"))
    result = run(pd.concat([bars, holiday], ignore_index=True))
    assert hits(result, "off_calendar") == [("S0", pd.Timestamp("2021-05-31", tz="UTC"))]
    assert not hits(result, "calendar_gap")


def test_hours_outside_the_session_are_off_calendar() -> None:
    bars = market(frequency="1Hour")
    early = bars.loc[[0]].assign(timestamp=bars["timestamp"][7].normalize() + pd.Timedelta("20h"))
    result = run(pd.concat([bars, early], ignore_index=True), "1Hour")
    assert len(hits(result, "off_calendar")) == 1


def test_missing_bars_are_a_gap_at_the_next_bar() -> None:
    bars = market()
    result = run(bars.drop(index=[50, 51, 52]).reset_index(drop=True))
    assert hits(result, "calendar_gap") == [at(bars, 53)]
    assert result.findings["detail"].iloc[0].startswith("3 expected bars")


def test_symbols_on_another_grid_are_hidden_but_their_opening_bars_until_coverage_fails() -> None:
    most = market(symbols=4, bars=300, frequency="1Hour", phase=30)
    few = market(symbols=2, bars=300, frequency="1Hour", phase=0)
    few["symbol"] = "T" + few["symbol"]
    bars = pd.concat([most, few], ignore_index=True)
    result = run(bars, "1Hour")
    off = result.findings[result.findings["rule"] == "off_grid"]
    first_hour = off["timestamp"] < most["timestamp"].iloc[1]
    assert set(off["symbol"][~first_hour]) == {"TS0", "TS1"}
    late = few[few["timestamp"] > few["timestamp"].iloc[150]]
    hidden = clean(bars, result.quarantine).query("quarantined")[["symbol", "timestamp"]]
    assert len(late.merge(hidden)) == len(late)
    assert hits(result, "low_coverage")
    assert not set(hidden["symbol"]) & set(most["symbol"])
    assert not hits(result, "calendar_gap"), "each symbol's gaps are judged on its own grid"


def test_a_stray_stamp_is_off_the_grid() -> None:
    bars = market(frequency="1Hour")
    bars.loc[50, "timestamp"] += pd.Timedelta(minutes=25, seconds=3)
    result = run(bars, "1Hour")
    assert hits(result, "off_grid") == [at(bars, 50)]


def test_a_forward_filled_run_is_stale_from_where_it_is_long_enough() -> None:
    bars = market()
    for row in range(41, 50):
        bars.loc[row, PRICES] = bars.loc[40, PRICES].to_numpy()
    assert hits(run(bars), "stale") == [at(bars, row) for row in range(44, 50)]


def test_equal_closes_with_trading_between_are_chance_until_there_are_many() -> None:
    bars = market()
    for row in range(41, 55):
        bars.loc[row, PRICES] = bars.loc[40, "close"] * np.array([1.0, 1.002 + row / 1e5, 0.998, 1.0])
    assert hits(run(bars), "stale") == [at(bars, row) for row in range(49, 55)]


def test_a_volume_that_never_changes_is_found_from_where_it_is_no_chance() -> None:
    bars = market()
    bars.loc[40:59, "volume"] = bars.loc[40, "volume"]
    result = run(bars)
    assert hits(result, "constant_volume") == [at(bars, row) for row in range(44, 60)]
    assert set(result.findings["rule"]) == {"constant_volume"}
    assert result.findings["detail"].iloc[-1].endswith("for 20 bars in a row")
    assert result.quarantine.empty


def test_volumes_of_a_few_lots_repeat_by_chance() -> None:
    bars = market(bars=400)
    rng = np.random.default_rng(0)
    bars["volume"] = rng.choice([100.0, 200.0, 300.0], len(bars))
    bars.loc[:20, "volume"] = 100.0 + np.arange(21)  # what is seen first
    assert hits(run(bars), "constant_volume") == []
    bars.loc[300:350, "volume"] = 100.0
    found = hits(run(bars), "constant_volume")
    assert found[-1] == at(bars, 350)
    assert len(found) > 30


def test_a_symbol_that_ends_before_the_others_is_a_warning_with_dates() -> None:
    bars = market()
    result = run(bars.drop(index=range(120, 150)).reset_index(drop=True))
    assert hits(result, "missing_tail") == [at(bars, 119)]
    assert set(result.findings["rule"]) == {"missing_tail"}
    last, end = bars["timestamp"][119], bars["timestamp"][149]
    expected = f"its last bar is of {last:%Y-%m-%d}, the market's of {end:%Y-%m-%d}: 30 expected bars missing"
    assert result.findings["detail"].tolist() == [expected]
    assert result.quarantine.empty


@pytest.mark.parametrize("phase", [0, 30])
def test_hourly_symbols_that_end_before_the_others_are_found(phase: int) -> None:
    bars = market(frequency="1Hour", phase=phase)
    result = run(bars.drop(index=range(147, 150)).reset_index(drop=True), "1Hour")
    assert hits(result, "missing_tail") == [at(bars, 146)]
    assert "3 expected bars" in result.findings["detail"].iloc[0]


def test_one_symbol_that_goes_on_makes_no_tail_of_the_many() -> None:
    bars = market(symbols=12)
    later = bars["timestamp"] > bars["timestamp"][146]
    result = run(bars[~later | (bars["symbol"] == "S3")].reset_index(drop=True))
    assert hits(result, "missing_tail") == []


@pytest.mark.parametrize("how", ["stale", "no volume", "gaps"])
def test_a_symbol_that_had_stopped_by_itself_has_no_missing_tail(how: str) -> None:
    bars = market()
    if how == "stale":
        bars.loc[100:119, PRICES] = bars.loc[100, "close"]
    elif how == "no volume":
        bars.loc[110:119, "volume"] = 0.0
    else:
        bars = bars.drop(index=range(60, 95))
    assert hits(run(bars.drop(index=range(120, 150)).reset_index(drop=True)), "missing_tail") == []


@pytest.mark.parametrize("frequency", ["1Day", "1Hour"])
def test_a_newest_bar_with_a_fraction_of_the_volume_is_unfinished(frequency: str) -> None:
    bars = market(frequency=frequency, bars=240)
    last = bars.groupby("symbol").tail(1).index
    bars.loc[last[:3], "volume"] *= 0.05
    bars.loc[52, "volume"] *= 0.1  # a quiet bar that is not the newest
    result = run(bars, frequency)
    assert hits(result, "unfinished_bar") == [at(bars, row) for row in last[:3]]
    assert result.quarantine.empty
    assert hits(run(bars, frequency, params=with_severity(unfinished_bar="ignore")), "unfinished_bar") == []
    with pytest.raises(UserError, match=r"To go on all the same, set validate_data\.severity\.unfinished_bar to warn"):
        run(bars, frequency, params=with_severity(unfinished_bar="fail")).raise_fatal()


def test_a_short_session_is_no_unfinished_bar() -> None:
    days = schedule("XNYS")
    short = np.flatnonzero(days.close - days.open < np.timedelta64(4, "h"))[-1]
    bars = market(bars=100)
    stamp = np.tile(days.session[short - 99 : short + 1], 6)
    bars["timestamp"] = pd.DatetimeIndex(stamp).tz_localize("UTC")
    bars["volume"] = 1000.0 + np.arange(len(bars)) % 7
    bars.loc[99::100, "volume"] = 450.0
    assert run(bars).findings.empty
    bars.loc[99, "volume"] = 200.0
    assert hits(run(bars), "unfinished_bar") == [at(bars, 99)]


def test_one_bad_print_is_one_jump() -> None:
    bars = market()
    bars.loc[60, PRICES] *= 1.83
    assert hits(run(bars), "jump") == [at(bars, 60)]


def test_a_step_that_stays_is_one_jump() -> None:
    bars = market()
    bars.loc[60:149, PRICES] *= 1.83
    assert hits(run(bars), "jump") == [at(bars, 60)]


def test_a_crash_of_the_whole_market_is_neither_jump_nor_split() -> None:
    bars = market(symbols=12)
    bars.loc[bars["timestamp"] >= bars["timestamp"][60], PRICES] *= 0.5
    result = run(bars)
    assert not hits(result, "jump")
    assert not hits(result, "split_like")


def assert_split(result: QualityResult, bars: pd.DataFrame, row: int) -> None:
    """The step is named on its bar, or on the next one where that decides; its own bar is hidden as a jump then."""
    named = hits(result, "split_like")
    assert named in ([at(bars, row)], [at(bars, row + 1)]), named
    assert hits(result, "jump") == ([] if named == [at(bars, row)] else [at(bars, row)])


@pytest.mark.parametrize("ratio", [2.0, 3.0, 4.0, 10.0, 20.0, 0.1, 0.5, 1.5])
@pytest.mark.parametrize("volume_too", [True, False])
def test_an_unadjusted_split_hides_the_symbol_from_then_on(ratio: float, volume_too: bool) -> None:
    bars = market(seed=3)
    bars.loc[60:149, PRICES] /= ratio
    if volume_too:
        bars.loc[60:149, "volume"] *= ratio
    elif ratio < 1:
        bars.loc[60:149, "volume"] *= 0.5  # dollar volume stays ordinary
    result = run(bars)
    assert_split(result, bars, 60)
    cleaned = clean(bars, result.quarantine)
    assert cleaned.index[cleaned["quarantined"]].tolist() == list(range(60, 150))


def actions_of(bars: pd.DataFrame, row: int, kind: str, value: float) -> pd.DataFrame:
    symbol, day = at(bars, row)
    return pd.DataFrame({"symbol": [symbol], "ex_date": [day.tz_localize(None)], "kind": [kind], "value": [value]})


def checked(bars: pd.DataFrame, adjustment: str, actions: pd.DataFrame) -> QualityResult:
    return check(
        bars, calendar="XNYS", frequency="1Day", adjustment=adjustment, params=PARAMS, corporate_actions=actions
    )


def test_a_listed_split_of_raw_prices_is_no_finding_and_an_unlisted_one_is() -> None:
    bars = market(seed=3)
    bars.loc[60:149, PRICES] /= 4.0
    bars.loc[60:149, "volume"] *= 4.0
    assert checked(bars, "none", actions_of(bars, 60, "split", 4.0)).findings.empty
    assert_split(checked(bars, "none", actions_of(bars, 200, "dividend", 0.1)), bars, 60)
    assert_split(run(bars, adjustment="none"), bars, 60)
    assert_split(checked(bars, "split", actions_of(bars, 60, "split", 4.0)), bars, 60)


def test_a_listed_split_that_is_not_in_raw_prices_is_a_finding() -> None:
    bars = market(seed=3)
    result = checked(bars, "none", actions_of(bars, 60, "split", 4.0))
    assert_split(result, bars, 60)
    details = result.findings["detail"][result.findings["rule"] == "split_like"]
    assert "lists a 4:1 split that is not in the price" in details.iloc[0]
    assert checked(bars, "split", actions_of(bars, 60, "split", 4.0)).findings.empty


def test_a_listed_dividend_is_no_jump() -> None:
    bars = market(seed=3)
    paid = 0.8 * bars.loc[59, "close"]
    bars.loc[60:149, PRICES] *= 0.2
    assert not run(bars, adjustment="split").findings.empty
    assert checked(bars, "split", actions_of(bars, 60, "dividend", paid)).findings.empty


@pytest.mark.parametrize("factor", [1.5, 2.0, 0.5, 1.83, 0.1, 100.0])
def test_only_the_bad_bar_is_hidden_when_its_way_back_looks_like_a_split(factor: float) -> None:
    bars = market(seed=3)
    bars.loc[60, PRICES] *= factor
    hidden = clean(bars, run(bars).quarantine)
    assert set(hidden.index[hidden["quarantined"]]) == {60}


def test_a_step_across_a_gap_is_judged_over_the_gap() -> None:
    bars = market(symbols=12)
    fallen = bars.groupby("symbol").cumcount().clip(60, 66) - 60  # the market falls by 12% a bar for six bars
    bars[PRICES] = bars[PRICES].mul(np.exp(-0.12 * fallen), axis=0)
    result = run(bars.drop(index=range(60, 66)).reset_index(drop=True))
    assert set(result.findings["rule"]) == {"calendar_gap"}


def test_prints_at_the_wrong_scale_hide_the_symbol_until_they_are_mended() -> None:
    bars = market(seed=3)
    bars.loc[60:79, PRICES] *= 0.01
    bars.loc[60:79, "volume"] *= 100
    result = run(bars)
    cleaned = clean(bars, result.quarantine)
    assert cleaned.index[cleaned["quarantined"]].tolist() == list(range(60, 80))
    assert_split(result, bars, 60)


def test_a_step_mends_the_latest_one_whatever_mends_the_earlier_one_later() -> None:
    bars = market(seed=3)
    bars.loc[60:109, PRICES] *= 0.5
    bars.loc[80:89, PRICES] *= 0.5
    for end in (150, 105):  # the step at 110 mends the one at 60; before it is seen, the one at 60 is open
        seen = bars[(bars["symbol"] != "S0") | (bars.index < end)]
        result = run(seen)
        named = [stamp for _, stamp in hits(result, "split_like")]
        assert [bars["timestamp"][:150].tolist().index(stamp) // 2 for stamp in named] == [30, 40], end
        hidden = clean(seen, result.quarantine)
        assert hidden.index[hidden["quarantined"]].tolist() == list(range(60, min(end, 110))), end


def test_rows_that_cannot_be_judged_just_before_the_mending_stay_hidden() -> None:
    bars = market(seed=3)
    bars.loc[60:79, PRICES] *= 0.01
    bars.loc[78:79, "low"] = bars.loc[78:79, "high"] * 1.5  # no valid step leads to them, whether 80 is known or not
    params = with_severity(ohlc_inconsistent="warn")
    for end in (150, 80):
        seen = bars[(bars["symbol"] != "S0") | (bars.index < end)]
        hidden = clean(seen, run(seen, params=params).quarantine)
        assert hidden.index[hidden["quarantined"]].tolist() == list(range(60, 80)), end


def test_news_that_about_halves_a_price_on_heavy_trading_is_not_a_split() -> None:
    bars = market(seed=3)
    bars.loc[60:149, PRICES] *= 0.46
    bars.loc[60, "volume"] *= 12
    bars.loc[60, "high"] *= 1.2
    assert not hits(run(bars), "split_like")


def test_a_lone_low_is_a_range_spike() -> None:
    bars = market()
    bars.loc[60, "low"] *= 0.75
    assert hits(run(bars), "range_spike") == [at(bars, 60)]


def test_thin_symbols_lose_their_bars_once_coverage_can_be_judged() -> None:
    bars = market()
    thin = bars[(bars["symbol"] != "S0") | (bars.index % 3 == 0)].reset_index(drop=True)
    result = run(thin)
    low = hits(result, "low_coverage")
    assert {symbol for symbol, _ in low} == {"S0"}
    assert min(stamp for _, stamp in low) >= bars["timestamp"][PARAMS.coverage_window - 1]


def test_close_only_bars_name_the_rules_that_do_not_apply() -> None:
    bars = market().assign(open=np.nan, high=np.nan, low=np.nan, volume=np.nan)
    result = run(bars)
    assert result.findings.empty
    assert set(result.not_applied) == {
        "ohlc_inconsistent", "negative_volume", "zero_volume", "constant_volume", "off_grid", "range_spike",
        "unfinished_bar",
    }  # fmt: skip


def test_close_only_splits_are_found() -> None:
    bars = market(seed=3).assign(open=np.nan, high=np.nan, low=np.nan, volume=np.nan)
    bars.loc[60:149, "close"] /= 3.0
    assert_split(run(bars), bars, 60)


def test_severity_fail_names_rule_count_and_first_bar() -> None:
    bars = market()
    bars.loc[[60, 200], "volume"] = 0.0
    result = run(bars, params=with_severity(zero_volume="fail"))
    with pytest.raises(UserError, match=r"zero_volume: 2 bars of 2 symbols, first S1 at") as told:
        result.raise_fatal()
    assert "\n" not in str(told.value)


def test_ignored_rules_are_silent() -> None:
    bars = market()
    bars.loc[60, "volume"] = 0.0
    assert run(bars, params=with_severity(zero_volume="ignore")).findings.empty


def test_severities_are_checked() -> None:
    with pytest.raises(UserError, match="unknown rule 'stael'"):
        run(market(), params=with_severity(stael="warn"))
    with pytest.raises(UserError, match="out_of_order"):
        run(market(), params=with_severity(out_of_order="mask"))
    for rule in ("missing_tail", "unfinished_bar"):
        with pytest.raises(UserError, match=f"{rule}: it is known only from where the file ends"):
            run(market(), params=with_severity(**{rule: "mask"}))
    with pytest.raises(UserError, match="'jump' has no severity"):
        run(market(), params=PARAMS.model_copy(update={"severity": {rule: "warn" for rule in RULES if rule != "jump"}}))


def test_mask_after_of_any_rule_hides_all_that_follows() -> None:
    bars = market()
    bars.loc[60, "close"] = np.nan
    result = run(bars, params=with_severity(missing_value="mask_after"))
    cleaned = clean(bars, result.quarantine)
    assert cleaned.index[cleaned["quarantined"]].tolist() == list(range(60, 150))


def damaged(seed: int, frequency: str) -> pd.DataFrame:
    """A market with every kind of defect at random places."""
    rng = np.random.default_rng(seed)
    bars = market(symbols=5, bars=160, frequency=frequency, seed=seed)
    size = len(bars)
    bars.loc[: int(rng.integers(0, 160)), ["open", "high", "low"]] = np.nan
    for column in COLUMNS:
        bars.loc[rng.integers(0, size, 3), column] = rng.choice([np.nan, -1.0, 0.0])
    for start in rng.integers(0, size - 12, 3):
        bars.loc[start : start + 9, PRICES] = bars.loc[start, PRICES].to_numpy()
    for start, scale in zip(rng.integers(0, size, 5), rng.choice([0.5, 2.0, 0.1, 0.3, 1.9, 3.0], 5), strict=True):
        bars.loc[start : start + int(rng.integers(1, 60)), PRICES] *= scale
    if frequency == "1Hour":
        moved = rng.integers(0, size, 20)
        bars.loc[moved, "timestamp"] += pd.Timedelta(minutes=30)
        bars.loc[bars["symbol"] == "S4", "timestamp"] += pd.Timedelta(minutes=5 * int(rng.integers(0, 3)))
    else:
        bars.loc[rng.integers(0, size, 6), "timestamp"] += pd.Timedelta(days=int(rng.integers(1, 4)))
    kept = np.sort(rng.permutation(size)[: int(0.9 * size)])
    return pd.concat([bars.loc[kept], bars.loc[rng.integers(0, size, 4)]], ignore_index=True)


@settings(max_examples=8, deadline=None)
@example(seed=1, cut=0.5, frequency="1Day")  # a step that is mended lies between another and its mending after the cut
@given(seed=st.integers(0, 10_000), cut=st.floats(0.1, 0.95), frequency=st.sampled_from(["1Day", "1Hour"]))
def test_no_rule_sees_the_future(seed: int, cut: float, frequency: str) -> None:
    bars = damaged(seed, frequency)
    now = bars["timestamp"].sort_values().iloc[int(cut * len(bars))]
    past = bars[bars["timestamp"] <= now]
    other = damaged(seed + 1, frequency)
    other["symbol"] = other["symbol"].replace({"S0": "A0"})  # a new name that sorts before the others
    other[COLUMNS] = other[COLUMNS].mul(np.where(np.arange(len(other)) % 7 == 0, np.nan, 1.0), axis=0)
    changed = pd.concat([past, other[other["timestamp"] > now]], ignore_index=True)
    every = with_severity(stale="mask_after", jump="mask_after", zero_volume="mask", calendar_gap="mask")
    for params in (PARAMS, every):
        seen = []
        for table in (bars, changed, past.reset_index(drop=True)):
            result = run(table, frequency, "split", params)
            hiding = ~result.findings["rule"].isin([rule.name for rule in RULES.values() if rule.hides_nothing])
            found = result.findings[(result.findings["timestamp"] <= now) & hiding]
            cleaned = clean(table, result.quarantine)
            cleaned = cleaned[cleaned["timestamp"] <= now]
            seen.append((found.reset_index(drop=True), cleaned.reset_index(drop=True)))
        for found, cleaned in seen[1:]:
            pd.testing.assert_frame_equal(found, seen[0][0], check_dtype=False)
            pd.testing.assert_frame_equal(cleaned, seen[0][1], check_dtype=False)


def test_the_order_of_symbols_in_the_file_changes_nothing() -> None:
    bars = damaged(5, "1Hour").drop_duplicates(["symbol", "timestamp"])
    other = pd.concat([group for _, group in bars.groupby("symbol")][::-1], ignore_index=True)
    a, b = run(bars, "1Hour"), run(other, "1Hour")
    pd.testing.assert_frame_equal(a.quarantine, b.quarantine)
    pd.testing.assert_frame_equal(clean(bars, a.quarantine), clean(other, b.quarantine))
