"""A record says what was decided when, not only what came of it a bar later."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from marl_pipeline.algos.common.episodes import Memoryless
from marl_pipeline.config import DirectivesParams, load_params
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.envs.trading.core.actions import DIRECTIVE_ACTIONS, Action, encode_directive
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.evaluation.walk_forward import trade
from tests.evaluation.evaluation_samples import market, random_dataset

SPAN = Span(100, 120)
DATASET = random_dataset(200)
PANEL = DATASET.panel


def environment(directives: DirectivesParams | None) -> TradingEnv:
    return TradingEnv(
        Market.from_dataset(DATASET, market(), "cpu"), market(), directives, mode="portfolio", num_envs=1, span=SPAN
    )


class Scripted:
    """Buys one symbol after another and gives another directive at every decision; remembers what it said."""

    def __init__(self) -> None:
        self.bars: list[int] = []
        self.chosen: list[Tensor] = []
        self.masters: list[tuple[bool, int]] = []

    def __call__(self, timestep: Timestep) -> Mapping[str, Tensor]:
        step = len(self.bars)
        self.bars.append(int(timestep.groups["symbols"].observation["bar"][0, 0]))
        symbols = torch.full((1, 4), int(Action.HOLD))
        symbols[0, step % 4] = int(Action.BUY_LARGE)
        self.chosen.append(symbols[0])
        order = encode_directive(step % 4, 3, 2)
        if "master" in timestep.groups:
            self.masters.append((bool(timestep.groups["master"].acts), order))
        return {"symbols": symbols, "master": torch.tensor([[order]])}


@pytest.mark.parametrize("with_master", [True, False])
def test_every_decision_is_recorded_at_the_bar_it_was_taken(with_master: bool) -> None:
    directives = load_params().train_master.directives if with_master else None
    script = Scripted()
    record = trade(environment(directives), Memoryless(script), PANEL, window=0, seed=0)
    table = record.decisions
    assert script.bars == list(range(SPAN.start, SPAN.stop - 1))
    assert table["bar"].tolist() == [bar for bar in script.bars for _ in PANEL.symbols]
    assert table["symbol"].tolist() == list(PANEL.symbols) * len(script.bars)
    assert table["chosen"].tolist() == torch.stack(script.chosen).ravel().tolist()
    assert (table["timestamp"].to_numpy() == PANEL.timestamps[table["bar"]]).all()
    refused = table[table["executed"] != table["chosen"]]
    assert len(refused), "the limits refused something"
    assert (refused["executed"] == int(Action.HOLD)).all()
    fills = record.trades[record.trades["side"] == "buy"]
    bought = table[(table["executed"] == int(Action.BUY_LARGE))]
    assert set(zip(fills["bar"], fills["symbol"], strict=True)) <= set(
        zip(bought["bar"] + 1, bought["symbol"], strict=True)
    )
    by_bar = table.groupby("bar")[["directive", "ordered"]].first()
    if not with_master:
        assert (by_bar["directive"] == DIRECTIVE_ACTIONS).all()
        assert (by_bar["ordered"] == -1).all()
        return
    said = [order if acts else -1 for acts, order in script.masters]
    assert by_bar["ordered"].tolist() == said
    assert said.count(-1) == 14, "it decides every fourth step of nineteen"
    active = [encode_directive(3, 3, 1)]
    for order in said[:-1]:
        active.append(order if order >= 0 else active[-1])
    assert by_bar["directive"].tolist() == active, "what is ordered at t binds from t + 1 on"
    risk = np.array(load_params().train_master.directives.risk_multipliers)[np.array(active) // 12]
    assert np.allclose(record.equity["directive_risk"].to_numpy()[:-1], risk)
