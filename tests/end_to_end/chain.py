"""The whole chain as one function of values: bars and companions in, decisions of every held-out window out."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from marl_pipeline.agents.trading_market import TradingMarket
from marl_pipeline.checkpoint import NoCheckpoint
from marl_pipeline.config import Params
from marl_pipeline.data.assemble import assemble
from marl_pipeline.data.companions import Companions
from marl_pipeline.data.dataset import Dataset, Signals
from marl_pipeline.data.quality import check, clean
from marl_pipeline.data.windows import Span, Window, active_version, split, walk_forward_windows
from marl_pipeline.encoders.pretrain import EncoderVersion, fit_encoder_versions
from marl_pipeline.evaluation.records import Record
from marl_pipeline.evaluation.walk_forward import trade
from marl_pipeline.progress import silent
from marl_pipeline.signals.fit import fit_signals
from marl_pipeline.training.hierarchy import Tiers, fine_tune, hierarchy_policy, train_master, train_symbol_agents

CPU = torch.device("cpu")
QUIET = {"on_step": silent, "checkpoint": NoCheckpoint()}


@dataclass(frozen=True)
class Chain:
    quarantine: pd.DataFrame
    dataset: Dataset
    signals: Signals
    versions: tuple[EncoderVersion, ...]
    markets: tuple[TradingMarket, ...]
    """As each encoder version describes it."""
    windows: tuple[Window, ...]
    weights: dict[str, torch.Tensor]
    """Of both tiers, before any window was tuned."""
    tuned: tuple[dict[str, torch.Tensor], ...]
    records: tuple[Record, ...]

    def version_at(self, bar: int) -> int:
        """The encoder version that describes the market to whoever trades a window that starts at `bar`."""
        return active_version(tuple(version.refit for version in self.versions), bar).version


def run_chain(params: Params, bars: pd.DataFrame, companions: Companions, only: int | None = None) -> Chain:
    """Every stage from validate_data to walk_forward, for seed 0; `only` trades a single window."""
    data = params.data
    found = check(
        bars,
        calendar=data.calendar,
        frequency=data.frequency,
        adjustment=data.adjustment,
        params=params.validate_data,
    )
    dataset = assemble(
        clean(bars, found.quarantine),
        companions,
        params.build_features,
        frequency=data.frequency,
        calendar=data.calendar,
        adjustment=data.adjustment,
    )
    look_back, seed = params.build_features.window, 0
    signals, _ = fit_signals(
        dataset, params.sl_signals, window=look_back, embargo=params.spans.embargo, seed=seed, device=CPU, **QUIET
    )
    versions = tuple(
        fit_encoder_versions(
            dataset,
            params.pretrain_encoder,
            window=look_back,
            spans=params.spans,
            walk_forward=params.walk_forward,
            seed=seed,
            device=CPU,
            **QUIET,
        )
    )
    markets = [
        TradingMarket.build(
            dataset, signals, version.embeddings, params.market, params.train_master.directives,
            gamma=params.train_symbol_agents.gamma, device=CPU,
        )
        for version in versions
    ]  # fmt: skip
    tiers = Tiers(params.train_symbol_agents, params.train_master)
    spans = split(dataset.bars, params.spans)
    base = {"train_span": spans.train, "validation_span": spans.validation, "seed": seed, **QUIET}
    symbols, _ = train_symbol_agents(markets[0], tiers, **base)
    master, _ = train_master(markets[0], tiers, symbols, **base)
    weights, _ = fine_tune(
        markets[0], tiers, symbols | master, params=params.fine_tune, iterations=params.fine_tune.iterations,
        span=spans.train, validation_span=spans.validation, seed=seed, label="fine-tune", **QUIET,
    )  # fmt: skip
    windows = walk_forward_windows(dataset.bars, params.spans, params.walk_forward)
    weights_of, records = [], []
    for window in windows if only is None else (windows[only],):
        market = markets[active_version(tuple(v.refit for v in versions), window.test.start).version]
        tuned = tune(params, market, weights, window, window.tune)
        weights_of.append(tuned)
        environment = market.environment("portfolio", window.test, num_envs=1, episode=None, seed=0)
        policy = hierarchy_policy(market, tiers, tuned, "portfolio", window.test)
        records.append(trade(environment, policy, dataset.panel, window=window.index, seed=seed))
    return Chain(
        found.quarantine,
        dataset,
        signals,
        versions,
        tuple(markets),
        windows,
        weights,
        tuple(weights_of),
        tuple(records),
    )


def tune(
    params: Params, market: TradingMarket, weights: dict[str, torch.Tensor], window: Window, span: Span
) -> dict[str, torch.Tensor]:
    """The weights that trade a window, tuned on the bars of `span`."""
    tuned, _ = fine_tune(
        market, Tiers(params.train_symbol_agents, params.train_master), weights, params=params.fine_tune,
        iterations=params.walk_forward.tune_iterations, span=span, validation_span=None, seed=0,
        label=f"window {window.index}: tune", **QUIET,
    )  # fmt: skip
    return tuned
