"""The phases in which the hierarchy is trained: symbol agents on a curriculum, the master over them, both together.

Each phase is one run of the training loop of one algorithm (`agents.hierarchy.Hierarchy`) from the weights of the phase
before. Weights are named `symbols....` and `master....`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from marl_pipeline.agents.curriculum import episode_starts, stage_universe
from marl_pipeline.agents.hierarchy import Hierarchy, HierarchySettings, Tier
from marl_pipeline.agents.trading_market import TradingMarket
from marl_pipeline.algos.common.algorithm import Policy
from marl_pipeline.algos.common.episodes import episode_steps
from marl_pipeline.algos.common.schedules import Schedule
from marl_pipeline.algos.mappo import MAPPOSettings
from marl_pipeline.algos.ppo import PPOSettings
from marl_pipeline.checkpoint import Checkpointer
from marl_pipeline.config import FineTuneParams, TrainMasterParams, TrainSymbolAgentsParams, explain
from marl_pipeline.data.regime import calmness, liquidity
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.protocol import Environment, closing
from marl_pipeline.envs.staged import StagedEnvironment
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.errors import UserError
from marl_pipeline.progress import OnStep
from marl_pipeline.seeding import stream_seed
from marl_pipeline.training.callbacks import as_records
from marl_pipeline.training.engines import registry as engines
from marl_pipeline.training.engines.task import Task, Trained
from marl_pipeline.training.loop import EpisodeResults

Weights = Mapping[str, Tensor]

SCORE = "validation_net"
"""The figure that weights are selected by: net growth on the validation span."""


@dataclass(frozen=True)
class Tiers:
    """What both tiers are trained by."""

    symbols: TrainSymbolAgentsParams
    master: TrainMasterParams

    def settings(self, *learn: Tier) -> HierarchySettings:
        """Raises:
        UserError: an unknown or missing setting, or a bad value.
        """
        master = mappo_settings(self.master) if "master" in learn else None
        return HierarchySettings(symbols=ppo_settings(self.symbols), master=master, learn=learn)


def ppo_settings(params: TrainSymbolAgentsParams) -> PPOSettings:
    """Raises:
    UserError: an unknown or missing setting, or a bad value.
    """
    try:
        return PPOSettings.model_validate(dict(params.ppo))
    except ValidationError as error:
        raise UserError(f"train_symbol_agents.ppo: {explain(error, PPOSettings)}") from None


def mappo_settings(params: TrainMasterParams) -> MAPPOSettings:
    """Raises:
    UserError: an unknown or missing setting, or a bad value.
    """
    try:
        return MAPPOSettings.model_validate(dict(params.mappo))
    except ValidationError as error:
        raise UserError(f"train_master.mappo: {explain(error, MAPPOSettings)}") from None


def net_log_growth(environment: TradingEnv, policy: Policy) -> Tensor:
    """Returns what the policy's mode earns over one pass of the environment's span, after all costs, [1] float64.

    Whatever reward the environment pays, this is the net one: the sum of the changes of log equity; in accounts mode
    the mean over the symbols in the universe.
    """
    total = torch.zeros((), dtype=torch.float64, device=environment.device)
    for _ in episode_steps(environment, policy, environment.reset()):
        total += environment.rewards.net.double().mean()
    return (total / environment.params.reward_scale).reshape(1)


def _validated(environment: TradingEnv, policy: Policy) -> EpisodeResults:
    return EpisodeResults(net_log_growth(environment, policy))


def train_symbol_agents(
    market: TradingMarket,
    tiers: Tiers,
    *,
    train_span: Span,
    validation_span: Span,
    seed: int,
    on_step: OnStep,
    checkpoint: Checkpointer,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """PPO on accounts of one symbol each, over the stages of the curriculum.

    Directives are drawn at random per episode, so that the agents know what to do under any master.
    """
    params, settings = tiers.symbols, tiers.settings("symbols")
    episode = min(params.episode, len(train_span) // 2)
    volatility, liquid = calmness(market.dataset), liquidity(market.dataset, train_span.stop)

    def make(num_envs: int, environment_seed: int) -> Environment:
        return StagedEnvironment(
            [
                partial(
                    market.environment,
                    "accounts",
                    train_span,
                    num_envs=num_envs,
                    episode=episode,
                    start_bars=episode_starts(volatility, train_span, episode, stage),
                    symbols=stage_universe(liquid, stage),
                    random_directives=True,
                    seed=stream_seed(environment_seed, f"curriculum {number} environment"),
                )
                for number, stage in enumerate(params.curriculum)
            ]
        )

    steps = [stage.iterations * settings.symbols.horizon * params.envs for stage in params.curriculum]
    trained = _train(
        market,
        settings,
        make,
        mode="accounts",
        num_envs=params.envs,
        timesteps=sum(steps),
        evaluate_every=params.evaluate_every * settings.symbols.horizon * params.envs,
        validation_span=validation_span,
        curriculum=(0, *accumulate(steps[:-1])),
        start=None,
        seed=seed,
        engine=params.engine,
        workers=params.workers,
        label="symbol agents",
        on_step=on_step,
        checkpoint=checkpoint,
    )
    weights = _of_tier("symbols", trained)
    stages = [stage.name for stage in params.curriculum]
    return weights, {**_outcome(trained), "stages": stages, "symbols": list(market.dataset.panel.symbols)}


def train_master(
    market: TradingMarket,
    tiers: Tiers,
    symbol_weights: Weights,
    *,
    train_span: Span,
    validation_span: Span,
    seed: int,
    on_step: OnStep,
    checkpoint: Checkpointer,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """MAPPO with a central value on a shared portfolio; the symbol agents are frozen and act by their mode."""
    trained = _train_in_portfolio(
        market,
        tiers,
        tiers.settings("master"),
        train_span=train_span,
        validation_span=validation_span,
        iterations=tiers.master.iterations,
        evaluate_every=tiers.master.evaluate_every,
        start=symbol_weights,
        seed=seed,
        label="master",
        on_step=on_step,
        checkpoint=checkpoint,
    )
    return _of_tier("master", trained), _outcome(trained)


def fine_tune(
    market: TradingMarket,
    tiers: Tiers,
    weights: Weights,
    *,
    params: FineTuneParams,
    iterations: int,
    span: Span,
    validation_span: Span | None,
    seed: int,
    label: str,
    on_step: OnStep,
    checkpoint: Checkpointer,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Both tiers together on a shared portfolio, each at its low learning rate; or the symbol agents, without a master.

    Without a `validation_span` (tuning inside a walk-forward window, where what follows is held out) the last
    weights are kept. Without `iterations` the weights are handed on as they are.
    """
    if iterations == 0:
        return dict(weights), {"selected_steps": 0, "best_validation_net": None, "curves": []}
    learn: tuple[Tier, ...] = ("symbols", "master") if market.has_master else ("symbols",)
    settings = tiers.settings(*learn)
    rates = {"symbols": params.symbol_learning_rate, "master": params.master_learning_rate}
    settings = settings.model_copy(
        update={tier: _at_rate(getattr(settings, tier), rates[tier]) for tier in settings.learn}
    )
    trained = _train_in_portfolio(
        market,
        tiers,
        settings,
        train_span=span,
        validation_span=validation_span,
        iterations=iterations,
        evaluate_every=params.evaluate_every,
        start=weights,
        seed=seed,
        label=label,
        on_step=on_step,
        checkpoint=checkpoint,
    )
    assert trained.learned is not None
    return dict(trained.learned), _outcome(trained)


def hierarchy_policy(market: TradingMarket, tiers: Tiers, weights: Weights, mode: Mode, span: Span) -> Policy:
    """The policy whose weights these are, for one environment of the market in `mode` on `span`.

    Raises:
        UserError: the weights do not fit.
    """
    environment = market.environment(mode, span, num_envs=1, episode=None, seed=0)
    settings = tiers.settings("symbols", "master") if "master" in environment.groups else tiers.settings("symbols")
    algorithm = Hierarchy(environment, market.inputs(environment.groups), settings, seed=0, timesteps=1)
    algorithm.load_weights(weights)
    return algorithm.policy


def _train_in_portfolio(
    market: TradingMarket,
    tiers: Tiers,
    settings: HierarchySettings,
    *,
    train_span: Span,
    validation_span: Span | None,
    iterations: int,
    evaluate_every: int,
    start: Weights,
    seed: int,
    label: str,
    on_step: OnStep,
    checkpoint: Checkpointer,
) -> Trained:
    params = tiers.master
    episode = min(params.episode, len(train_span) // 2)

    def make(num_envs: int, environment_seed: int) -> Environment:
        return market.environment(
            "portfolio",
            train_span,
            num_envs=num_envs,
            episode=episode,
            seed=stream_seed(environment_seed, f"{label} environment"),
        )

    horizon = max(getattr(settings, tier).horizon for tier in settings.learn)
    return _train(
        market,
        settings,
        make,
        mode="portfolio",
        num_envs=params.envs,
        timesteps=iterations * horizon * params.envs,
        evaluate_every=evaluate_every * horizon * params.envs,
        validation_span=validation_span,
        curriculum=(),
        start=start,
        seed=seed,
        engine=params.engine,
        workers=params.workers,
        label=label,
        on_step=on_step,
        checkpoint=checkpoint,
    )


def _train(
    market: TradingMarket,
    settings: HierarchySettings,
    make: Callable[[int, int], Environment],
    *,
    mode: Mode,
    num_envs: int,
    timesteps: int,
    evaluate_every: int,
    validation_span: Span | None,
    curriculum: tuple[int, ...],
    start: Weights | None,
    seed: int,
    engine: str,
    workers: int,
    label: str,
    on_step: OnStep,
    checkpoint: Checkpointer,
) -> Trained:
    """One phase: one run of the training loop on the engine asked for."""
    validation = (
        market.environment(mode, validation_span, num_envs=1, episode=None, seed=0) if validation_span else None
    )
    with closing(make(1, 0)) as environment:
        inputs = market.inputs(environment.groups)
    task = Task(
        algorithm="hierarchy",
        settings=settings,
        build=Hierarchy,
        make=make,
        inputs=inputs,
        num_envs=num_envs,
        seed=stream_seed(seed, label),
        timesteps=timesteps,
        workers=workers,
        device=market.device,
        evaluate=partial(_validated, validation) if validation is not None else None,
        evaluate_every=evaluate_every,
        checkpoint=checkpoint,
        checkpoint_every=max(evaluate_every, 1),
        label=label,
        on_step=on_step,
        select=validation is not None,
        score=SCORE,
        start=None if start is None else dict(start),
        curriculum=curriculum,
    )
    return engines.train(engine, task)


def _at_rate(settings: PPOSettings, learning_rate: float) -> PPOSettings:
    rate = Schedule(kind="constant", start=learning_rate, end=learning_rate, share=1.0)
    return settings.model_copy(update={"learning_rate": rate})


def _of_tier(tier: Tier, trained: Trained) -> dict[str, Tensor]:
    assert trained.learned is not None
    return {name: tensor for name, tensor in trained.learned.items() if name.startswith(f"{tier}.")}


def _outcome(trained: Trained) -> dict[str, Any]:
    selected = trained.run.selected
    return {
        "selected_steps": trained.run.steps if selected is None else selected.steps,
        "best_validation_net": None if selected is None else selected.mean,
        "curves": as_records(trained.run.curves),
    }
