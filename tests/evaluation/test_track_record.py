from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.evaluation.metrics import simple_returns
from marl_pipeline.evaluation.track_record import (
    ACCOUNT_COLUMNS,
    COSTS,
    account_metrics,
    chain,
    closing_rate,
    combine,
    grouped_weights,
    weights_of,
    window_edges,
)
from tests.evaluation.evaluation_samples import market, random_dataset, record_of, windows_of


def chained(seed: int = 0, symbols: int = 4) -> tuple[pd.DataFrame, pd.DataFrame]:
    dataset = random_dataset(900, symbols)
    records = [record_of(dataset, window, seed) for window in windows_of(dataset)]
    return chain(records, dataset.panel.symbols, market())


def test_windows_chain_by_returns_and_pay_for_selling_out() -> None:
    dataset = random_dataset(900)
    records = [record_of(dataset, window, 0) for window in windows_of(dataset)]
    table, _ = chain(records, dataset.panel.symbols, market())
    assert closing_rate(market()) == pytest.approx(8.5e-4)
    expected = market().initial_cash
    for record in records:
        last = record.equity.iloc[-1]
        expected *= last["equity"] * (1 - last["exposure"] * 8.5e-4) / record.initial_cash
    assert table["equity"].iloc[-1] == pytest.approx(expected, rel=1e-12)
    assert table["equity"].iloc[0] == market().initial_cash
    assert (table["closing"] > 0).sum() == len(records)
    starts = table.groupby("window").head(1)["equity"].to_numpy()
    ends = table.groupby("window").tail(1)["equity"].to_numpy()
    np.testing.assert_allclose(starts[1:], ends[:-1])


def test_inside_a_window_the_returns_are_those_of_the_record() -> None:
    dataset = random_dataset(900)
    records = [record_of(dataset, window, 0) for window in windows_of(dataset)]
    table, _ = chain(records, dataset.panel.symbols, market())
    second = table[table["window"] == 1]["equity"].to_numpy()
    np.testing.assert_allclose(simple_returns(second)[:-1], simple_returns(records[1].equity["equity"].to_numpy())[:-1])


def test_money_and_fills_are_scaled_to_the_chained_account_and_records_are_left_alone() -> None:
    dataset = random_dataset(900)
    records = [record_of(dataset, window, 0) for window in windows_of(dataset)]
    before = records[1].equity.copy()
    table, trades = chain(records, dataset.panel.symbols, market())
    scale = table[table["window"] == 1]["equity"].iloc[0] / records[1].initial_cash
    second = trades[trades["window"] == 1].iloc[0]
    assert second["shares"] == pytest.approx(scale)
    assert second["notional"] == pytest.approx(scale)
    assert second["price"] == 1.0
    paid = table[table["window"] == 1]["commission"].sum()
    assert paid == pytest.approx(records[1].equity["commission"].sum() * scale)
    pd.testing.assert_frame_equal(records[1].equity, before)


def test_positions_become_one_column_per_symbol() -> None:
    table, _ = chained(seed=2)
    weights = weights_of(table)
    assert list(weights.columns) == ["S00", "S01", "S02", "S03"]
    np.testing.assert_allclose(weights.sum(axis=1), table["exposure"], rtol=1e-5)
    assert (weights[["S00", "S01", "S03"]] == 0).all(axis=None)


def test_records_that_do_not_follow_each_other_are_refused() -> None:
    dataset = random_dataset(900)
    records = [record_of(dataset, window, 0) for window in windows_of(dataset)]
    with pytest.raises(ValueError, match="does not follow"):
        chain([records[0], records[2]], dataset.panel.symbols, market())
    with pytest.raises(ValueError, match="does not follow"):
        chain([records[0], dataclasses.replace(records[1], seed=9)], dataset.panel.symbols, market())
    with pytest.raises(ValueError, match="unknown symbol"):
        chain(records, ["X"], market())


def test_combining_averages_returns_and_cost_shares() -> None:
    one, other = chained(0)[0], chained(1)[0]
    both = combine([one, other])
    assert tuple(both.columns) == ACCOUNT_COLUMNS
    mean = (simple_returns(one["equity"].to_numpy()) + simple_returns(other["equity"].to_numpy())) / 2
    np.testing.assert_allclose(simple_returns(both["equity"].to_numpy()), mean, atol=1e-12)
    pd.testing.assert_frame_equal(combine([one, one]), one[list(ACCOUNT_COLUMNS)], check_exact=False, rtol=1e-9)
    assert (both[list(COSTS)] >= 0).all(axis=None)
    with pytest.raises(ValueError, match="same bars"):
        combine([one, other.iloc[1:]])


def test_equity_is_price_profit_less_costs_for_the_headline_too() -> None:
    table, _ = chained()
    session = np.arange(900)
    figures = account_metrics(table, session, 252.0)
    assert figures.exposure == pytest.approx(table["exposure"].mean())
    assert figures.annual_cost > 0


def test_positions_are_grouped_by_sector_or_by_the_largest_symbols() -> None:
    table, _ = chained()
    weights, what = grouped_weights([table], random_dataset(900))
    assert what == "sector"
    assert set(weights.columns) == {"A & B", "<C>"}
    np.testing.assert_allclose(weights.sum(axis=1), table["exposure"], rtol=1e-5)
    many = random_dataset(900, 15)
    records = [record_of(many, window, 3) for window in windows_of(many)]
    table, _ = chain(records, many.panel.symbols, market())
    no_sectors = dataclasses.replace(many, sectors=("unknown",), sector=np.zeros(15, np.int64))
    weights, what = grouped_weights([table], no_sectors)
    assert (what, weights.shape[1], weights.columns[0], weights.columns[-1]) == ("symbol", 12, "S03", "other")
    np.testing.assert_allclose(weights.sum(axis=1), table["exposure"], rtol=1e-5)


def test_every_window_has_its_edges() -> None:
    table, _ = chained()
    edges = window_edges(table)
    assert len(edges) == 3
    assert (edges["first"] < edges["last"]).all()
