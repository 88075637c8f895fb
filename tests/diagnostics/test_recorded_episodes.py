"""Recorded episodes say what was played, to the figure; the monitor reads them and sees what was planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marl_pipeline.config import load_params
from marl_pipeline.data.windows import Span
from marl_pipeline.diagnostics.account_figures import EVENTS
from marl_pipeline.diagnostics.action_diversity import action_diversity
from marl_pipeline.diagnostics.episode_file import load_episodes, save_episodes
from marl_pipeline.diagnostics.episodes import COLUMNS, Episodes
from marl_pipeline.diagnostics.monitor import monitor
from marl_pipeline.diagnostics.page import monitor_page
from marl_pipeline.diagnostics.recorder import record_episodes
from marl_pipeline.diagnostics.reward_study import study_episodes, study_reward
from marl_pipeline.diagnostics.simple_policies import PolicyName, policy_of
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.envs.trading.rewards.shaped import COMPONENTS
from marl_pipeline.errors import UserError
from tests.envs.markets import hostile, market_params, panel

DIRECTIVES = load_params().train_master.directives
ENVS, STEPS = 5, 30


def recorded(
    mode: Mode,
    policy: PolicyName = "random",
    reward: str = "guide_v3_2",
    master: str = "risk_adjusted",
    bars: Any = None,
    **limits: Any,
) -> Episodes:
    params = market_params(reward=reward, master_reward=master, **limits)
    played = hostile(np.random.default_rng(5), 80, 7, 2) if bars is None else bars
    environment = TradingEnv(
        Market.from_panel(played, params), params, DIRECTIVES,
        mode=mode, num_envs=ENVS, span=Span(0, len(played.close)), episode=STEPS, seed=2,
    )  # fmt: skip
    play = policy_of(policy, 2, environment.device)
    return record_episodes(environment, play, name=policy, seed=2, source="test", timestamps=played.timestamps)


def quiet() -> Any:
    rng = np.random.default_rng(0)
    return panel(100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, (40, 3)), 0)))


@pytest.mark.parametrize("mode", ["accounts", "portfolio"])
def test_the_record_adds_up(mode: Mode) -> None:
    """Equity moves by P&L, costs, fees and interest; components sum up to the pay."""
    episodes = recorded(mode, portfolio_drawdown=0.1, account_drawdown=0.1, cool_down=3, cash_rate=0.02)
    table, books = episodes.table, episodes.books()
    assert set(table.columns) == set(COLUMNS) | {f"symbols_{name}" for name in COMPONENTS} | (
        {"master_return", "master_diversification", "master_excess"} if mode == "portfolio" else set()
    )
    assert len(table) == ENVS * STEPS * 7 == len(books) * (7 if mode == "portfolio" else 1)
    parts = table[[f"symbols_{name}" for name in COMPONENTS]].sum(axis=1) * episodes.about.reward_unit
    assert np.allclose(parts, table["reward"], rtol=1e-4, atol=1e-4)
    earned = (table["price_pnl"] - table["commission"] - table["slippage"]).to_numpy(dtype=np.float64)
    if mode == "portfolio":
        earned = earned.reshape(-1, 7).sum(1)
    before = books.groupby("book")["equity"].shift(1).fillna(episodes.about.initial_cash)
    after = before + earned - books["borrow"] + books["interest"]
    assert np.allclose(after, books["equity"], rtol=1e-5)
    growth = np.log(books["equity"].astype(float) / before)[books["alive"]] * episodes.about.reward_scale
    assert np.allclose(growth, books["net"][books["alive"]], atol=1e-3)
    assert (table["executed"][~table["choice"]] == "HOLD").all()
    assert {"normal", "liquidating", "cooling", "reduced"} >= set(books["halt"]) > {"normal"}


def test_a_file_brings_back_every_bit_and_says_what_its_columns_mean(tmp_path: Path) -> None:
    episodes = recorded("portfolio")
    save_episodes(tmp_path / "deep" / "a.parquet", episodes)
    save_episodes(tmp_path / "b.parquet", recorded("portfolio"))
    read = load_episodes(tmp_path / "b.parquet")
    assert read.about == episodes.about
    pd.testing.assert_frame_equal(read.table, episodes.table)
    assert (tmp_path / "deep" / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    schema = pq.read_schema(tmp_path / "b.parquet")
    assert schema.field("own_net").metadata[b"meaning"] == COLUMNS["own_net"].meaning.encode()
    assert (tmp_path / "b.parquet").stat().st_size < 120 * len(episodes.table)


def test_what_is_no_episode_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; make one with `marl env record"):
        load_episodes(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("bars")
    with pytest.raises(UserError, match=r"text\.parquet: not a readable parquet file"):
        load_episodes(tmp_path / "text.parquet")
    pq.write_table(pa.table({"close": [1.0]}), tmp_path / "bars.parquet")
    with pytest.raises(UserError, match="but not of episodes"):
        load_episodes(tmp_path / "bars.parquet")
    save_episodes(tmp_path / "good.parquet", recorded("accounts"))
    good = pq.read_table(tmp_path / "good.parquet")
    broken = {
        r"lacks the columns \['equity'\]": good.drop_columns(["equity"]),
        "holds no step": good.slice(0, 0),
        "format 0, this program reads 1": good.replace_schema_metadata({b"marl_episodes": b'{"version": 0}'}),
        "in its header": good.replace_schema_metadata({b"marl_episodes": b'{"version": 1}'}),
    }
    for words, table in broken.items():
        pq.write_table(table, tmp_path / "broken.parquet")
        with pytest.raises(UserError, match=words) as raised:
            load_episodes(tmp_path / "broken.parquet")
        assert "\n" not in str(raised.value)


def test_the_study_of_a_file_is_that_of_the_same_episodes_played() -> None:
    params = market_params(reward="guide_v3_2")
    market = Market.from_panel(quiet(), params)
    live = study_reward(
        market, params, DIRECTIVES, mode="accounts", policy="random", span=Span(0, 40), gamma=1.0,
        episodes=ENVS, steps=STEPS, seed=2,
    )  # fmt: skip
    found = study_episodes(recorded("accounts", bars=quiet()))
    assert (found.paid, found.net) == pytest.approx((live.paid, live.net), rel=1e-6)
    assert found.correlation == pytest.approx(live.correlation, rel=1e-6)
    assert found.correlation is not None
    assert -1.0 < found.correlation < 1.0
    for mine, other in zip(found.components, live.components, strict=True):
        assert (mine.mean, mine.share, mine.deviation) == pytest.approx(
            (other.mean, other.share, other.deviation), rel=1e-5
        )
        assert mine.flags == other.flags


def test_under_net_paid_is_earned() -> None:
    seen = monitor(recorded("accounts", reward="net", bars=quiet()))
    assert seen.reward.gap == 0.0
    assert seen.reward.correlation == pytest.approx(1.0)
    assert seen.episode_correlation == pytest.approx(1.0)
    assert seen.reward.components == ()
    assert "has no components" in monitor_page(seen)


def test_a_policy_without_variety_is_found() -> None:
    idle = monitor(recorded("accounts", "hold", bars=quiet()))
    assert idle.actions.flags == ("collapsed",)
    assert idle.actions.entropy == 0.0
    assert idle.actions.taken["HOLD"] == 1.0
    assert idle.accounts.mean_growth == 1.0
    assert idle.accounts.cash == 1.0
    assert any("HOLD is 100.0% of its free decisions" in line for line in idle.findings())
    assert idle.reward.correlation is None
    varied = monitor(recorded("accounts", bars=quiet()))
    assert varied.actions.flags == ()
    assert 0.9 < varied.actions.entropy <= 1.0
    assert varied.actions.by_symbol.between(0.8, 1.0).all()
    assert set(varied.actions.by_step.index) == set(range(1, STEPS + 1))


def test_variety_is_measured_where_there_was_a_choice() -> None:
    episodes = recorded("accounts", bars=quiet())
    traded = episodes.table["executed"] != "HOLD"
    seen = action_diversity(replace(episodes, table=episodes.table.assign(choice=traded)))
    assert seen.free == pytest.approx(traded.mean())
    assert seen.taken["HOLD"] == 0.0 < seen.executed["HOLD"]
    none = action_diversity(replace(episodes, table=episodes.table.assign(choice=False)))
    assert none.flags == ("nothing to decide",)
    assert none.entropy == none.free == 0.0


def test_turnover_costs_and_exposure_are_those_of_known_trades() -> None:
    """Everything is bought in the first step at a price that never moves, and nothing is sold."""
    seen = monitor(
        recorded("accounts", "buy_and_hold", bars=panel(np.full((STEPS + 2, 2), 100.0)), slippage_bps=0.0, impact=0.0)
    )
    accounts = seen.accounts
    assert accounts.turnover * STEPS == pytest.approx(1.0, abs=2e-3)
    assert accounts.cost * 1e4 == pytest.approx(7.5, rel=2e-3)  # half of 15 basis points a round trip
    assert accounts.cost_bps * STEPS == pytest.approx(7.5, rel=2e-3)
    assert accounts.exposure == pytest.approx(1.0, abs=2e-3)
    assert accounts.open_positions == 1.0
    assert accounts.mean_growth == pytest.approx(1.0 - 7.5e-4, rel=1e-5)


def test_events_are_seen_where_they_happen() -> None:
    close = np.full((STEPS + 2, 2), 100.0)
    close[10:, 0] = 60.0
    seen = monitor(recorded("accounts", "buy_and_hold", bars=panel(close), account_drawdown=0.25, cool_down=4))
    expected = {"kill switch": ENVS, "re-entry": ENVS}  # every episode crosses bar 10, and comes back
    assert seen.event_counts == {**dict.fromkeys(EVENTS, 0), **expected}
    fallen = seen.events[seen.events["kind"] == "kill switch"]
    assert set(fallen["who"]) == {"S000"}
    assert set(fallen["detail"]) == {"drawdown 40.1%"}  # costs included
    assert fallen["timestamp"].nunique() == 1
    assert f"{fallen['timestamp'].iloc[0]:%Y-%m-%d}" in monitor_page(seen)


def test_chosen_and_executed_are_distinguished() -> None:
    episodes = recorded("accounts", bars=quiet())
    always = pd.Categorical(["SELL_ALL"] * len(episodes.table), pd.Index(episodes.about.actions))
    stubborn = episodes.table.assign(chosen=always)
    seen = monitor(replace(episodes, table=stubborn))
    assert seen.actions.chosen["SELL_ALL"] == 1.0
    assert seen.actions.executed["SELL_ALL"] < 0.3
    assert seen.actions.refused == pytest.approx(1.0 - seen.actions.executed["SELL_ALL"])
    assert seen.event_counts["refused order"] == round(seen.actions.refused * len(stubborn))


@pytest.mark.parametrize("mode", ["accounts", "portfolio"])
def test_the_page_is_one_file_and_the_same_for_the_same_episodes(mode: Mode) -> None:
    seen = monitor(recorded(mode, portfolio_drawdown=0.1, account_drawdown=0.1, cool_down=3))
    html = monitor_page(seen)
    assert html == monitor_page(monitor(recorded(mode, portfolio_drawdown=0.1, account_drawdown=0.1, cool_down=3)))
    assert "http" not in html.replace("http://www.w3.org", "")
    assert "<script" not in html
    for words in ("kill switch", "Variety over time", "Signal to noise", "Deepest drawdown", "sharpe"):
        assert words in html
    assert seen.as_json()["events"]["kill switch"] == seen.event_counts["kill switch"] > 0
