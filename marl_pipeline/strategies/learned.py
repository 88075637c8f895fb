"""A policy of any algorithm on any engine as a strategy: learns on the train span of the market, is selected on the
validation span and trades the windows as it is.

Algorithms and engines are imported by name: the source that a strategy's own ones reach is in its specification.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.agents.market_inputs import JoinedMarketInputs, MarketInputs
from marl_pipeline.agents.view import MarketView
from marl_pipeline.algos.common.algorithm import Algorithm, Policy
from marl_pipeline.checkpoint import Checkpointer
from marl_pipeline.config import DirectivesParams
from marl_pipeline.data.windows import Span, Window, split, version_in_force
from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.envs.wrappers import JoinedAgents
from marl_pipeline.evaluation.records import Record
from marl_pipeline.evaluation.walk_forward import record_window
from marl_pipeline.seeding import stream_seed
from marl_pipeline.store.models import load_embeddings, load_refits, load_signals
from marl_pipeline.store.paths import ENCODER, SIGNALS
from marl_pipeline.store.policies import load_weights
from marl_pipeline.strategies.kind import Learned, Work
from marl_pipeline.training.engines import registry as engines
from marl_pipeline.training.engines.task import Task, cpu_weights, load_policy

EVALUATIONS = 20
"""Of a run, on the validation span."""

NETWORK = "policy"


def learn(phase: str, work: Work, before: Path | None) -> Learned:
    """See `strategies.kind.Kind`: all of the training is one phase."""
    spans = split(work.dataset.bars, work.params.spans)
    venue = Venue.of(work, 0)
    train = Span(max(spans.train.start, venue.view.start), spans.train.stop)
    selection = Selection(partial(net_log_growth, venue, spans.validation), work.checkpoint.child("best"))
    task = task_of(work, venue, train, selection)
    trained = engines.train(work.options["engine"], task)
    steps = [one.steps for one in trained.run.evaluations]
    scores = [one.mean for one in trained.run.evaluations]
    best = selection.best()
    metadata = {
        "best_validation_net": best["score"],
        "selected_steps": steps[scores.index(max(scores))],
        "steps": trained.run.steps,
        "curves": [{"name": "validation_net", "x": steps, "y": scores}],
    }
    tags = {"agent_type": work.options["algo"], "algo": work.options["algo"], "engine": work.options["engine"]}
    return Learned({NETWORK: best["weights"]}, metadata, {"best_validation_net": best["score"]}, tags)


def trade(work: Work, policy: Path, window: Window) -> Record:
    """See `strategies.kind.Kind`."""
    venue = Venue.of(work, version_in_force(load_refits(work.root / ENCODER), window.test.start).version)
    task = task_of(work, venue, window.test, None)
    decide = Deciding(load_policy(task, load_weights(policy, NETWORK)))
    view, environment = venue.portfolio(window.test)
    return record_window(environment, decide, work.dataset.panel, window=window.index, seed=work.seed, view=view)


def task_of(work: Work, venue: Venue, span: Span, selection: Selection | None) -> Task:
    """The training run on `span`; without a `selection` only what is needed to build the policy."""
    options = work.options
    chosen = import_module("marl_pipeline.algos.registry").parse(options["algo"], options["settings"])
    params = work.params.train_symbol_agents.ppo
    episode = min(params.episode, len(span) // 2)

    def make(num_envs: int, seed: int) -> Environment:
        environment, _ = venue.environment(
            span, num_envs=num_envs, episode=episode, seed=stream_seed(seed, "environment")
        )
        return environment

    timesteps = options["timesteps"]
    return Task(
        algorithm=options["algo"],
        settings=chosen.settings,
        build=partial(build, options["algo"]),
        make=make,
        inputs=venue.inputs(make(1, 0)),
        num_envs=chosen.envs,
        seed=work.seed,
        timesteps=timesteps,
        workers=options["workers"],
        device=work.device,
        evaluate=selection if selection is not None else _no_evaluation,
        evaluate_every=max(timesteps // EVALUATIONS, 1),
        checkpoint=work.checkpoint,
        checkpoint_every=max(timesteps // EVALUATIONS, 1),
        label=f"{options['algo']} on {options['environment']}",
        on_step=work.on_step,
    )


def build(algorithm: str, *arguments: Any, **named: Any) -> Algorithm:
    """`algos.registry.build` by name."""
    made: Algorithm = import_module("marl_pipeline.algos.registry").build(algorithm, *arguments, **named)
    return made


@dataclass(frozen=True)
class Venue:
    """The market that a strategy learns and trades in, as its environment shows it.

    Attributes:
        kind: the name of the environment.
        directives: what a master chooses from; None where there is none.
    """

    work: Work
    kind: str
    market: Market
    view: MarketView
    directives: DirectivesParams | None

    @classmethod
    def of(cls, work: Work, version: int) -> Venue:
        """As encoder `version` describes the market."""
        inputs, kind = work.options["inputs"], work.options["environment"]
        view = MarketView.build(
            work.dataset,
            load_signals(work.root / SIGNALS) if inputs["signals"] else None,
            load_embeddings(work.root / ENCODER, version) if inputs["embeddings"] else None,
            work.device,
        )
        return cls(
            work,
            kind,
            Market.from_dataset(work.dataset, work.params.market, work.device),
            view,
            work.params.train_master.directives if kind == "market/portfolio" else None,
        )

    def environment(
        self, span: Span, *, num_envs: int, episode: int | None, seed: int, accounts: bool = True
    ) -> tuple[Environment, TradingEnv]:
        """As the policy sees it, and the simulator below. `accounts` gives every symbol an account of its own where
        the strategy learns on those."""
        trading = TradingEnv(
            self.market,
            self.work.params.market,
            self.directives,
            mode="accounts" if accounts and self.kind == "market/accounts" else "portfolio",
            num_envs=num_envs,
            span=span,
            episode=episode,
            gamma=self.work.params.train_symbol_agents.ppo.gamma,
            benchmark=self.work.dataset.benchmark,
            seed=seed,
        )
        return (JoinedAgents(trading) if self.kind == "market/single" else trading), trading

    def portfolio(self, span: Span) -> tuple[Environment, TradingEnv]:
        """One portfolio over the whole span, whatever the strategy learned on."""
        return self.environment(span, num_envs=1, episode=None, seed=0, accounts=False)

    def inputs(self, environment: Environment) -> MarketInputs | JoinedMarketInputs:
        kind = JoinedMarketInputs if self.kind == "market/single" else MarketInputs
        return kind(self.view, environment.groups)


class Deciding:
    """A policy that acts by its mode and remembers what it has seen since the window began."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._memory = policy.start(1)

    def __call__(self, timestep: Timestep) -> Mapping[str, Tensor]:
        actions, self._memory = self._policy.act(timestep, self._memory, None)
        return actions


@torch.no_grad()
def net_log_growth(venue: Venue, span: Span, policy: Policy) -> float:
    """The logarithm of what a policy's mode makes of 1 over the span, after all costs and whatever its reward is."""
    environment, trading = venue.portfolio(span)
    decide, timestep = Deciding(policy), environment.reset()
    while not bool(timestep.done.all()):
        timestep = environment.step(decide(timestep))
    return math.log(max(float(trading.book.equity), 1e-9) / trading.params.initial_cash)


class Selection:
    """Evaluates a policy and keeps the weights of the best evaluation, the earliest in a draw.

    They lie beside the checkpoint, for an engine may evaluate in a process of its own, and a run may be resumed.
    """

    def __init__(self, score: Any, checkpoint: Checkpointer) -> None:
        self._score, self._checkpoint = score, checkpoint
        self._best: dict[str, Any] | None = None

    def __call__(self, policy: Policy) -> Tensor:
        """[1] the score."""
        score = self._score(policy)
        known = self._known()
        if known is None or score > known["score"]:
            self._best = {"score": score, "weights": cpu_weights(policy.module)}
            self._checkpoint.save(self._best)
        return torch.tensor([score], dtype=torch.float64)

    def best(self) -> dict[str, Any]:
        """`score` and `weights` of the best evaluation."""
        known = self._known()
        assert known is not None, "every run ends with an evaluation"
        return known

    def _known(self) -> dict[str, Any] | None:
        saved = self._checkpoint.load()
        return self._best if saved is None else saved


def _no_evaluation(policy: Policy) -> Tensor:
    raise RuntimeError("this task builds a policy and does not train it")
