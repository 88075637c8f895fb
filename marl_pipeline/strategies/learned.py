"""A policy of any algorithm on any engine as a strategy: learns on the train span of the market, is selected on the
validation span and trades the windows as it is.

Algorithms and engines are imported by name: the source that a strategy's own ones reach is in its specification.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from marl_pipeline.agents.market_inputs import JoinedMarketInputs, MarketInputs
from marl_pipeline.agents.trading_market import TradingMarket
from marl_pipeline.algos.common.algorithm import Algorithm, Policy
from marl_pipeline.algos.common.episodes import episode_steps
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.data.windows import Span, Window, active_version, split
from marl_pipeline.envs.episodes import MeasuredEpisodes
from marl_pipeline.envs.protocol import Environment, closing
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.envs.wrappers import JoinedAgents
from marl_pipeline.evaluation.records import Record
from marl_pipeline.evaluation.walk_forward import trade as trade_policy
from marl_pipeline.scenarios.market.metrics import episode_metrics
from marl_pipeline.seeding import stream_seed
from marl_pipeline.store.models import load_embeddings, load_refits, load_signals
from marl_pipeline.store.paths import ENCODER, SIGNALS
from marl_pipeline.store.policies import load_weights
from marl_pipeline.strategies.kind import Learned, Work
from marl_pipeline.training.callbacks import as_records
from marl_pipeline.training.engines import registry as engines
from marl_pipeline.training.engines.task import Task, load_policy
from marl_pipeline.training.loop import EpisodeResults

EVALUATIONS = 20
"""Of a run, on the validation span."""

SCORE = "validation_net"

NETWORK = "policy"


def learn(phase: str, work: Work, before: Path | None) -> Learned:
    """See `strategies.kind.Kind`: all of the training is one phase."""
    spans = split(work.dataset.bars, work.params.spans)
    venue = Venue.of(work, 0)
    train = Span(max(spans.train.start, venue.market.view.start), spans.train.stop)
    task = replace(
        task_of(work, venue, train), evaluate=partial(net_log_growth, venue, spans.validation), select=True, score=SCORE
    )
    trained = engines.train(work.options["engine"], task)
    best = trained.run.selected
    assert best is not None, "every run ends with an evaluation"
    metadata = {
        "best_validation_net": best.mean,
        "selected_steps": best.steps,
        "steps": trained.run.steps,
        "curves": as_records(trained.run.curves),
    }
    tags = {"agent_type": work.options["algo"], "algo": work.options["algo"], "engine": work.options["engine"]}
    weights = {name: tensor.contiguous() for name, tensor in trained.weights.items()}
    return Learned({NETWORK: weights}, metadata, {"best_validation_net": best.mean}, tags)


def trade(work: Work, policy: Path, window: Window) -> Record:
    """See `strategies.kind.Kind`."""
    venue = Venue.of(work, active_version(load_refits(work.root / ENCODER), window.test.start).version)
    learned = load_policy(task_of(work, venue, window.test), load_weights(policy, NETWORK))
    view, environment = venue.portfolio(window.test)
    return trade_policy(environment, learned, work.dataset.panel, window=window.index, seed=work.seed, view=view)


def task_of(work: Work, venue: Venue, span: Span) -> Task:
    """The training run on `span`, without evaluations."""
    options = work.options
    chosen = import_module("marl_pipeline.agents.registry").parse(options["algo"], options["settings"])
    episode = min(work.params.train_symbol_agents.episode, len(span) // 2)

    def make(num_envs: int, seed: int) -> Environment:
        environment, _ = venue.environment(
            span, num_envs=num_envs, episode=episode, seed=stream_seed(seed, "environment")
        )
        return environment

    with closing(make(1, 0)) as environment:
        inputs = venue.inputs(environment)
    timesteps = options["timesteps"]
    every = max(timesteps // EVALUATIONS, 1)
    return Task(
        algorithm=options["algo"],
        settings=chosen.settings,
        build=partial(build, options["algo"]),
        make=make,
        inputs=inputs,
        metrics=episode_metrics(work.params.market.initial_cash),
        num_envs=chosen.envs,
        seed=work.seed,
        timesteps=timesteps,
        workers=options["workers"],
        device=work.device,
        evaluate=None,
        evaluate_every=every,
        checkpoint=work.checkpoint,
        checkpoint_every=every,
        label=f"{options['algo']} on {options['environment']}",
        on_step=work.on_step,
    )


def build(algorithm: str, *arguments: Any, **named: Any) -> Algorithm:
    """`agents.registry.build` by name."""
    made: Algorithm = import_module("marl_pipeline.agents.registry").build(algorithm, *arguments, **named)
    return made


@dataclass(frozen=True)
class Venue:
    """The market that a strategy learns and trades in, seen as the environment named `kind` shows it."""

    kind: str
    market: TradingMarket

    @classmethod
    def of(cls, work: Work, version: int) -> Venue:
        """As encoder `version` sees the market."""
        inputs, kind, params = work.options["inputs"], work.options["environment"], work.params
        market = TradingMarket.build(
            work.dataset,
            load_signals(work.root / SIGNALS) if inputs["signals"] else None,
            load_embeddings(work.root / ENCODER, version) if inputs["embeddings"] else None,
            params.market,
            params.train_master.directives,
            gamma=params.train_symbol_agents.gamma,
            device=work.device,
            has_master=kind == "market/portfolio",
        )
        return cls(kind, market)

    def environment(
        self, span: Span, *, num_envs: int, episode: int | None, seed: int, learning: bool = True
    ) -> tuple[Environment, TradingEnv]:
        """As the policy sees it, and the simulator below it."""
        mode: Mode = "accounts" if learning and self.kind == "market/accounts" else "portfolio"
        trading = self.market.environment(mode, span, num_envs=num_envs, episode=episode, seed=seed)
        return (JoinedAgents(trading) if self.kind == "market/single" else trading), trading

    def portfolio(self, span: Span) -> tuple[Environment, TradingEnv]:
        """One portfolio over the whole span, whatever the strategy learned on."""
        return self.environment(span, num_envs=1, episode=None, seed=0, learning=False)

    def inputs(self, environment: Environment) -> Inputs:
        kind = JoinedMarketInputs if self.kind == "market/single" else MarketInputs
        return kind(self.market.view, environment.groups)


def net_log_growth(venue: Venue, span: Span, policy: Policy) -> EpisodeResults:
    """The logarithm of what a policy's mode makes of 1 over the span, after all costs, whatever its reward is."""
    environment, trading = venue.portfolio(span)
    cash = trading.params.initial_cash
    measured = MeasuredEpisodes(environment, episode_metrics(cash))
    deque(episode_steps(measured, policy, measured.reset()), maxlen=0)
    return EpisodeResults((trading.book.equity[:, 0] / cash).clamp(min=1e-9).log(), measured.first)
