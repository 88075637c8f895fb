"""What each phase of the hierarchy's training may play, move and choose by: spans, rates, curriculum, frozen tiers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from marl_pipeline.agents.curriculum import episode_starts, stage_universe
from marl_pipeline.agents.trading_market import TradingMarket
from marl_pipeline.algos.ppo import PPO
from marl_pipeline.checkpoint import NoCheckpoint
from marl_pipeline.config import CurriculumStageParams, FineTuneParams
from marl_pipeline.data.dataset import Dataset, Embeddings, Signals
from marl_pipeline.data.regime import calmness, liquidity
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.progress import silent
from marl_pipeline.training.hierarchy import (
    Tiers,
    fine_tune,
    hierarchy_policy,
    train_master,
    train_symbol_agents,
)
from tests.agents.test_training_rewards import trading
from tests.data.market_panels import dataset_of, random_panel

BARS, SYMBOLS = 150, 4
TRAIN, VALIDATION, TEST = Span(20, 90), Span(92, 120), Span(122, BARS)
QUIET: dict[str, Any] = {"on_step": silent, "checkpoint": NoCheckpoint()}
BASE: dict[str, Any] = {"train_span": TRAIN, "validation_span": VALIDATION, "seed": 0, **QUIET}
FINE = FineTuneParams(iterations=2, symbol_learning_rate=1.5e-4, master_learning_rate=7e-3, evaluate_every=1)
CURRICULUM = (
    CurriculumStageParams(name="easy", symbols=0.34, calm=0.4, iterations=2),
    CurriculumStageParams(name="all", symbols=1.0, calm=1.0, iterations=3),
)


def market_on(dataset: Dataset, tiers: Tiers, of: TradingMarket) -> TradingMarket:
    """What the agents see is the data set's own: features, with signals and embeddings that say nothing."""
    bars, size = dataset.panel.close.shape
    signals = Signals(("MLP72",), np.full((bars, size, 1, 3), 1 / 3, np.float32), np.ones((bars, size), bool))
    embeddings = Embeddings(0, 90, 0, dataset.features[..., :1].astype(np.float32))
    return TradingMarket.build(
        dataset, signals, embeddings, of.params, of.directives, gamma=of.gamma, device=torch.device("cpu")
    )


def made(seed: int = 3) -> tuple[TradingMarket, Tiers]:
    market, tiers = trading("net", "net")
    tiers = replace(tiers, symbols=tiers.symbols.model_copy(update={"curriculum": CURRICULUM, "evaluate_every": 1}))
    return market_on(dataset_of(random_panel(seed, bars=BARS)), tiers, market), tiers


@dataclass
class Played:
    """One step of an environment: which one, at which bars it decided, what it saw and did, and who played."""

    span: Span
    envs: int
    mode: str
    bars: Tensor
    timestep: Timestep
    actions: Mapping[str, Tensor]


@dataclass
class PlayRecord:
    """Everything that was played and learned while it was kept."""

    steps: list[Played] = field(default_factory=list)
    moved: list[tuple[float, list[int]]] = field(default_factory=list)
    """Of each update: the learning rate, and the sizes of the parameters that it moves."""


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> PlayRecord:
    kept = PlayRecord()
    shown: dict[int, Timestep] = {}
    step, reset, update = TradingEnv.step, TradingEnv.reset, PPO.update

    def recorded_step(self: TradingEnv, actions: Mapping[str, Tensor]) -> Timestep:
        copied = {name: action.clone() for name, action in actions.items()}
        before = shown[id(self)]
        mode = "portfolio" if self.rules.pooled else "accounts"
        kept.steps.append(Played(self.span, self.num_envs, mode, self.book.bar.clone(), before, copied))
        shown[id(self)] = step(self, actions)
        return shown[id(self)]

    def recorded_reset(self: TradingEnv, where: Tensor | None = None) -> Timestep:
        shown[id(self)] = reset(self, where)
        return shown[id(self)]

    def recorded_update(self: PPO, experience: Any, generator: torch.Generator) -> dict[str, float]:
        owned = [parameter.numel() for parameter in self.policy.module.parameters()]
        kept.moved.append((float(self.optimizer.param_groups[0]["lr"]), owned))
        return update(self, experience, generator)

    monkeypatch.setattr(TradingEnv, "step", recorded_step)
    monkeypatch.setattr(TradingEnv, "reset", recorded_reset)
    monkeypatch.setattr(PPO, "update", recorded_update)
    return kept


def learned_in(record: PlayRecord) -> list[Played]:
    return [step for step in record.steps if step.envs > 1]


def evaluated_in(record: PlayRecord) -> list[Played]:
    return [step for step in record.steps if step.envs == 1]


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def train_all(market: TradingMarket, tiers: Tiers) -> list[tuple[dict[str, Tensor], dict[str, Any]]]:
    """The three phases, each from the weights of the one before."""
    symbols, first = train_symbol_agents(market, tiers, **BASE)
    master, second = train_master(market, tiers, symbols, **BASE)
    both, third = fine_tune(
        market, tiers, symbols | master, params=FINE, iterations=FINE.iterations, span=TRAIN,
        validation_span=VALIDATION, seed=0, label="fine-tune", **QUIET,
    )  # fmt: skip
    return [(symbols, first), (master, second), (both, third)]


def test_phases_learn_on_the_train_span_and_are_selected_on_the_validation_span(record: PlayRecord) -> None:
    market, tiers = made()
    train_all(market, tiers)
    for steps, span in ((learned_in(record), TRAIN), (evaluated_in(record), VALIDATION)):
        assert {step.span for step in steps} == {span}
        bars = torch.cat([step.bars for step in steps])
        assert int(bars.min()) >= span.start
        assert int(bars.max()) < span.stop - 1, "what is decided at the last bar would fill after the span"
        assert {step.mode for step in steps} == {"accounts", "portfolio"}


def noised(dataset: Dataset, start: int) -> Dataset:
    """Other prices and features from bar `start` on."""
    other = dataset_of(random_panel(99, bars=BARS))
    panel = {
        name: np.concatenate([getattr(dataset.panel, name)[:start], getattr(other.panel, name)[start:]])
        for name in ("open", "high", "low", "close", "volume", "tradable")
    }
    features = np.concatenate([dataset.features[:start], other.features[start:]])
    return replace(dataset, panel=replace(dataset.panel, **panel), features=features)


def test_no_weight_depends_on_the_test_span() -> None:
    """And the control: on the span that selects, the scores do."""
    market, tiers = made()
    scores, weights = [], []
    for start in (BARS, VALIDATION.stop, VALIDATION.start + 1):
        phases = train_all(market_on(noised(market.dataset, start), tiers, market), tiers)
        weights.append([learned for learned, _ in phases])
        scores.append([outcome["best_validation_net"] for _, outcome in phases])
    for one, other in zip(weights[0], weights[1], strict=True):
        assert equal(one, other)
    assert scores[0] == scores[1]
    assert scores[0] != scores[2]


def test_inside_a_window_nothing_is_evaluated_and_the_last_weights_are_kept(record: PlayRecord) -> None:
    market, tiers = made()
    phases = train_all(market, tiers)
    record.steps.clear()
    weights = phases[0][0] | phases[1][0]
    tuned, outcome = fine_tune(
        market, tiers, weights, params=FINE, iterations=2, span=TRAIN, validation_span=None, seed=0,
        label="window 0: tune", **QUIET,
    )  # fmt: skip
    assert evaluated_in(record) == []
    assert {step.span for step in record.steps} == {TRAIN}
    assert outcome["best_validation_net"] is None
    assert not equal(tuned, weights)


def test_each_tier_learns_at_its_own_rate_and_a_frozen_one_at_none(record: PlayRecord) -> None:
    market, tiers = made()
    sizes: dict[str, list[int]] = {}
    expected = {
        "symbols": {tiers.settings("symbols").symbols.learning_rate.start},
        "master": {tiers.settings("master").master.learning_rate.start},
    }
    assert len({*expected["symbols"], *expected["master"], FINE.symbol_learning_rate, FINE.master_learning_rate}) >= 3

    symbols, _ = train_symbol_agents(market, tiers, **BASE)
    sizes["symbols"] = record.moved[0][1]
    assert all(owned == sizes["symbols"] for _, owned in record.moved)
    assert record.moved[0][0] in expected["symbols"]
    record.moved.clear()

    master, _ = train_master(market, tiers, symbols, **BASE)
    sizes["master"] = record.moved[0][1]
    assert sizes["master"] != sizes["symbols"]
    assert all(owned == sizes["master"] for _, owned in record.moved), "the symbol agents are frozen"
    assert record.moved[0][0] in expected["master"]
    record.moved.clear()

    fine_tune(
        market, tiers, symbols | master, params=FINE, iterations=2, span=TRAIN, validation_span=None, seed=0,
        label="fine-tune", **QUIET,
    )  # fmt: skip
    rates = {tier: {rate for rate, owned in record.moved if owned == size} for tier, size in sizes.items()}
    assert rates == {"symbols": {FINE.symbol_learning_rate}, "master": {FINE.master_learning_rate}}


def test_the_curriculum_decides_who_plays_and_where_episodes_begin(record: PlayRecord) -> None:
    market, tiers = made()
    train_symbol_agents(market, tiers, **BASE)
    steps = learned_in(record)
    horizon, envs = tiers.settings("symbols").symbols.horizon, tiers.symbols.envs
    volatility, liquid = calmness(market.dataset), liquidity(market.dataset, TRAIN.stop)
    episode = min(tiers.symbols.episode, len(TRAIN) // 2)
    count = [stage.iterations * horizon for stage in CURRICULUM]
    assert len(steps) == sum(count)
    parts = (steps[: count[0]], steps[count[0] + 1 :])  # the step in between ends the episodes of the first stage
    for stage, played in zip(CURRICULUM, parts, strict=True):
        assert {step.envs for step in played} == {envs}
        who = torch.stack([step.timestep.groups["symbols"].present.any(0) for step in played]).any(0)
        assert who.tolist() == stage_universe(liquid, stage).tolist(), stage.name
        allowed = set(episode_starts(volatility, TRAIN, episode, stage).tolist())
        begun = {
            int(bar)
            for before, step in zip([None, *played[:-1]], played, strict=True)
            for number, bar in enumerate(step.bars)
            if before is None or int(before.bars[number]) + 1 != int(bar)
        }
        assert begun <= allowed, stage.name
    easy, everything = (stage_universe(liquid, stage).sum() for stage in CURRICULUM)
    assert (easy, everything) == (1, SYMBOLS), "the stages differ"


def test_a_frozen_tier_acts_by_its_mode_and_the_tier_that_learns_explores(record: PlayRecord) -> None:
    market, tiers = made()
    symbols, _ = train_symbol_agents(market, tiers, **BASE)
    record.steps.clear()
    train_master(market, tiers, symbols, **BASE)
    steps = learned_in(record)
    policy = hierarchy_policy(market, tiers, symbols, "portfolio", TRAIN)
    explored = 0
    for step in steps:
        mode, _ = policy.act(step.timestep, {}, None)
        assert torch.equal(step.actions["symbols"], mode["symbols"])
        explored += len(set(step.actions["master"].flatten().tolist())) > 1
    assert explored > len(steps) / 2, "a master that explores gives its two environments different directives"


def test_tiers_that_learn_together_both_explore(record: PlayRecord) -> None:
    market, tiers = made()
    phases = train_all(market, tiers)
    record.steps.clear()
    weights = phases[0][0] | phases[1][0]
    fine_tune(
        market, tiers, weights, params=FINE, iterations=1, span=TRAIN, validation_span=None, seed=0, label="x", **QUIET
    )
    policy = hierarchy_policy(market, tiers, weights, "portfolio", TRAIN)
    unlike = [
        not torch.equal(step.actions["symbols"], policy.act(step.timestep, {}, None)[0]["symbols"])
        for step in record.steps
    ]
    assert sum(unlike) > len(unlike) / 2
