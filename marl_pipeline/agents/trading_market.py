"""One market, and what an encoder and the supervised models say of it, as agents trade in it and see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from marl_pipeline.agents.market_inputs import MarketInputs
from marl_pipeline.agents.view import MarketView
from marl_pipeline.config import DirectivesParams, MarketParams
from marl_pipeline.data.dataset import BoolArray, Dataset, Embeddings, IntArray, Signals
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.protocol import GroupSpec
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv


@dataclass(frozen=True)
class TradingMarket:
    """Attributes:
    view: what the agents see of the market, from bar `view.start` on.
    gamma: the learners' discount per step, for potential-based rewards.
    has_master: whether a master directs a portfolio; without one the full limits are its only directive.
    """

    dataset: Dataset
    view: MarketView
    market: Market
    params: MarketParams
    directives: DirectivesParams
    gamma: float
    device: torch.device
    has_master: bool = True

    @classmethod
    def build(
        cls,
        dataset: Dataset,
        signals: Signals | None,
        embeddings: Embeddings | None,
        params: MarketParams,
        directives: DirectivesParams,
        *,
        gamma: float,
        device: torch.device,
        has_master: bool = True,
    ) -> TradingMarket:
        """Without signals or embeddings the agents see the features alone."""
        return cls(
            dataset=dataset,
            view=MarketView.build(dataset, signals, embeddings, device),
            market=Market.from_dataset(dataset, params, device),
            params=params,
            directives=directives,
            gamma=gamma,
            device=device,
            has_master=has_master,
        )

    def environment(
        self,
        mode: Mode,
        span: Span,
        *,
        num_envs: int,
        episode: int | None,
        seed: int,
        start_bars: IntArray | None = None,
        symbols: BoolArray | None = None,
        random_directives: bool = False,
    ) -> TradingEnv:
        """See `TradingEnv`."""
        return TradingEnv(
            self.market,
            self.params,
            self.directives if self.has_master or mode != "portfolio" else None,
            mode=mode,
            num_envs=num_envs,
            span=span,
            episode=episode,
            start_bars=start_bars,
            symbols=symbols,
            random_directives=random_directives,
            gamma=self.gamma,
            benchmark=self.dataset.benchmark,
            seed=seed,
            device=self.device,
        )

    def inputs(self, groups: Mapping[str, GroupSpec]) -> MarketInputs:
        """What the networks of `groups` read: rows of this market, and their own fields."""
        return MarketInputs(self.view, groups)
