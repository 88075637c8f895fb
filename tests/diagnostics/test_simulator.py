"""Which market `marl env` plays, and the tables it prints."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from rich.console import Console

from marl_pipeline.config import load_params
from marl_pipeline.data.windows import Span
from marl_pipeline.diagnostics.reward_study import study_policies
from marl_pipeline.diagnostics.simulator import reward_table, simulator, smoke_table
from marl_pipeline.diagnostics.smoke import smoke
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.store.dataset import save_dataset
from marl_pipeline.store.paths import DATASET
from tests.data.market_panels import dataset_of, random_panel
from tests.envs.markets import market_params, panel


def text(table: object) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_the_synthetic_market_is_played_until_a_data_set_is_built(tmp_path: Path) -> None:
    params = load_params()
    built = simulator(tmp_path, params, params.market)
    assert built.source == "synthetic"
    assert (built.market.bars, built.market.size) == (params.data.synthetic.bars, params.data.synthetic.symbols)
    dataset = dataset_of(random_panel(1, gaps=0.1))
    save_dataset(tmp_path / DATASET, dataset)
    built = simulator(tmp_path, params, params.market)
    assert built.source == str(DATASET)
    assert built.market.symbols == dataset.panel.symbols
    assert len(built.span) == dataset.bars


def test_the_tables_name_every_invariant_and_component() -> None:
    params = market_params(reward="guide_v3_2")
    close = 100.0 * np.exp(np.cumsum(np.random.default_rng(0).normal(0.0, 0.01, (30, 2)), 0))
    market, directives = Market.from_panel(panel(close), params), load_params().train_master.directives
    result = smoke(market, params, directives, "portfolio", span=Span(0, 30), steps=64)
    shown = text(smoke_table([result], "synthetic"))
    assert all(name in shown for name in (*result.violations, *result.magnitudes, "symbols pnl"))
    studies = study_policies(
        market, params, directives, mode="accounts", span=Span(0, 30), gamma=1.0, episodes=2, seed=0
    )
    shown = text(reward_table(studies))
    assert all(name in shown for name in ("buy_and_hold", "diversification", "dominant", "paid, net, gap"))
