"""The hierarchy as a strategy: symbol agents on accounts of their own, a master over them, both together; tuned on the
bars before every window. With `master: none` the symbol agents share one portfolio under the full limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from marl_pipeline.agents.trading_market import TradingMarket
from marl_pipeline.config import S, Section, overridden
from marl_pipeline.data.windows import Window, active_version, split
from marl_pipeline.evaluation.records import Record
from marl_pipeline.evaluation.walk_forward import trade as trade_policy
from marl_pipeline.store.models import load_embeddings, load_refits, load_signals
from marl_pipeline.store.paths import ENCODER, SIGNALS
from marl_pipeline.store.policies import by_tier, load_weights
from marl_pipeline.strategies.kind import Learned, Work
from marl_pipeline.training.hierarchy import (
    Tiers,
    Weights,
    fine_tune,
    hierarchy_policy,
    train_master,
    train_symbol_agents,
)


def learn(phase: str, work: Work, before: Path | None) -> Learned:
    """See `strategies.kind.Kind`."""
    spans = split(work.dataset.bars, work.params.spans)
    common: dict[str, Any] = {
        "validation_span": spans.validation,
        "seed": work.seed,
        "on_step": work.on_step,
        "checkpoint": work.checkpoint,
    }
    market, tiers = _market(work), _tiers(work)
    if before is None:
        weights, metadata = train_symbol_agents(market, tiers, train_span=spans.train, **common)
        tags = {"agent_type": "symbol", "curriculum_stage": metadata["stages"][-1]}
    elif phase == "train_master":
        symbols = load_weights(before, "symbols")
        master, metadata = train_master(market, tiers, symbols, train_span=spans.train, **common)
        weights, tags = symbols | master, {"agent_type": "master"}
    else:
        params = _changed(work, "fine_tune", work.params.fine_tune)
        weights, metadata = fine_tune(
            market,
            tiers,
            _weights(work, before),
            params=params,
            iterations=params.iterations,
            span=spans.train,
            label="fine-tune",
            **common,
        )
        metadata, tags = {"universe": list(work.dataset.panel.symbols), **metadata}, {"agent_type": "hierarchy"}
    best = metadata["best_validation_net"]
    return Learned(by_tier(weights), metadata, {} if best is None else {"best_validation_net": best}, tags)


def trade(work: Work, policy: Path, window: Window) -> Record:
    """See `strategies.kind.Kind`."""
    market = _market(work, active_version(load_refits(work.root / ENCODER), window.test.start).version)
    tiers = _tiers(work)
    weights, tuning = fine_tune(
        market,
        tiers,
        _weights(work, policy),
        params=_changed(work, "fine_tune", work.params.fine_tune),
        iterations=_changed(work, "walk_forward", work.params.walk_forward).tune_iterations,
        span=window.tune,
        validation_span=None,
        seed=work.seed,
        label=f"window {window.index}: tune",
        on_step=work.on_step,
        checkpoint=work.checkpoint,
    )
    return trade_policy(
        market.environment("portfolio", window.test, num_envs=1, episode=None, seed=0),
        hierarchy_policy(market, tiers, weights, "portfolio", window.test),
        work.dataset.panel,
        window=window.index,
        seed=work.seed,
        tuning=tuning["curves"],
    )


def _market(work: Work, version: int = 0) -> TradingMarket:
    """The market as encoder `version` sees it; version 0 is the base fit."""
    params, inputs = work.params, work.options["inputs"]
    overrides = work.options["overrides"].get("train_master", {})
    return TradingMarket.build(
        work.dataset,
        load_signals(work.root / SIGNALS) if inputs["signals"] else None,
        load_embeddings(work.root / ENCODER, version) if inputs["embeddings"] else None,
        _changed(work, "market", params.market),
        overridden(params.train_master.directives, overrides.get("directives", {})),
        gamma=_changed(work, "train_symbol_agents", params.train_symbol_agents).gamma,
        device=torch.device(params.run.device),
        has_master=work.options["master"] != "none",
    )


def _tiers(work: Work) -> Tiers:
    master = work.params.train_master
    if isinstance(master, Section):  # the first phase declares the directives alone
        master = _changed(work, "train_master", master)
    return Tiers(_changed(work, "train_symbol_agents", work.params.train_symbol_agents), master)


def _changed(work: Work, name: str, section: S) -> S:
    return overridden(section, work.options["overrides"].get(name, {}))


def _weights(work: Work, folder: Path) -> Weights:
    symbols = load_weights(folder, "symbols")
    return symbols if work.options["master"] == "none" else symbols | load_weights(folder, "master")
