"""Steps the simulator with random actions and checks after every step what must always hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.algos.common.episodes import Memoryless, episode_steps
from marl_pipeline.config import DirectivesParams, MarketParams
from marl_pipeline.data.windows import Span
from marl_pipeline.diagnostics.simple_policies import policy_of
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.envs.trading.core.accounts import Ledger
from marl_pipeline.envs.trading.core.book import Book
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv

TOLERANCE = 1e-9
"""Relative to the account's equity (or to the limit itself)."""

MONEY: tuple[str, ...] = ("price_pnl", "commission", "slippage", "borrow", "interest")


@dataclass(frozen=True)
class SimulatorStep:
    """One step, as an invariant reads it."""

    environment: TradingEnv
    before: Book
    after: Book
    ledger: Ledger
    timestep: Timestep


@dataclass
class SmokeResult:
    """Of one mode.

    Attributes:
        steps, symbol_steps: taken, over all environments.
        violations: invariant -> how many (environment, step, agent) entries broke it.
        worst_identity: largest gap of the accounting identity, relative to the equity before.
        magnitudes: what moved equity -> mean absolute value per account and step, in basis points of the initial cash.
        components: group -> component -> mean absolute value per agent and step; empty under `net`.
    """

    mode: Mode
    steps: int = 0
    symbol_steps: int = 0
    violations: dict[str, int] = field(default_factory=dict)
    worst_identity: float = 0.0
    magnitudes: dict[str, float] = field(default_factory=dict)
    components: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not any(self.violations.values())

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}


def smoke(
    market: Market,
    params: MarketParams,
    directives: DirectivesParams,
    mode: Mode,
    *,
    span: Span,
    steps: int,
    seed: int = 0,
    num_envs: int = 16,
    episode: int = 64,
) -> SmokeResult:
    """Takes at least `steps` random steps in `mode`, checking every invariant after each.

    Raises:
        UserError: the span is too short to trade in.
    """
    environment = TradingEnv(
        market,
        params,
        directives,
        mode=mode,
        num_envs=num_envs,
        span=span,
        episode=min(episode, len(span) - 1),
        seed=seed,
        random_directives=True,
    )
    random, before = policy_of("random", seed, environment.device), environment.book

    def act(timestep: Timestep) -> Mapping[str, Tensor]:
        nonlocal before
        before = environment.book
        return random.act(timestep, {}, None)[0]

    result = SmokeResult(mode, violations=dict.fromkeys(INVARIANTS, 0), magnitudes=dict.fromkeys(MONEY, 0.0))
    absolute: dict[str, Tensor] = {}
    rounds = -(-steps // num_envs)
    for step in episode_steps(environment, Memoryless(act), environment.reset(), restart=True, steps=rounds):
        assert environment.ledger is not None
        simulated = SimulatorStep(environment, before, environment.book, environment.ledger, step.after)
        for name, broken in INVARIANTS.items():
            result.violations[name] += int(broken(simulated).sum())
        result.worst_identity = max(result.worst_identity, float(_identity_gap(simulated).max()))
        for name in MONEY:
            result.magnitudes[name] += float(step.after.info[name].abs().mean()) / params.initial_cash * 1e4
        for group, log in environment.rewards.logs.items():
            size = log.last.double().abs().mean((0, 1))
            absolute[group] = absolute[group] + size if group in absolute else size
        result.steps += num_envs
        result.symbol_steps += num_envs * market.size
    result.magnitudes = {name: size / rounds for name, size in result.magnitudes.items()}
    result.components = {
        group: dict(zip(log.names, (absolute[group] / rounds).tolist(), strict=True))
        for group, log in environment.rewards.logs.items()
    }
    return result


# Each says where it is broken, as a tensor of bool.


def _identity_gap(simulated: SimulatorStep) -> Tensor:
    ledger, pool = simulated.ledger, simulated.environment.rules.pool
    explained = pool(ledger.price_pnl - ledger.commission - ledger.slippage) - ledger.borrow + ledger.interest
    scale = simulated.before.equity.abs().clamp(min=1.0)
    return (simulated.after.equity - simulated.before.equity - explained).abs() / scale


def _identity(simulated: SimulatorStep) -> Tensor:
    return _identity_gap(simulated) > TOLERANCE


def _sums(simulated: SimulatorStep) -> Tensor:
    book = simulated.after
    gap = (book.cash + simulated.environment.rules.pool(book.value) - book.equity).abs()
    return gap > TOLERANCE * book.equity.abs().clamp(min=1.0)


def _short_or_in_debt(simulated: SimulatorStep) -> Tensor:
    rules, book = simulated.environment.rules, simulated.after
    debt = (book.cash < -TOLERANCE * book.equity.abs().clamp(min=1.0)) & (not rules.leveraged)
    short = (book.shares < 0.0) & (not rules.shorting)
    return torch.cat([short.flatten(), debt.flatten()])


def _over_the_cap(simulated: SimulatorStep) -> Tensor:
    ledger, rules = simulated.ledger, simulated.environment.rules
    value = ledger.holding.abs() * ledger.price
    return _grown(simulated) & (value > rules.cap * ledger.fill_equity * (1.0 + TOLERANCE))


def _grown(simulated: SimulatorStep) -> Tensor:
    """Positions that a fill opened or enlarged."""
    return simulated.ledger.holding.abs() > simulated.before.shares.abs()


def _over_the_volume(simulated: SimulatorStep) -> Tensor:
    capacity = simulated.environment.market.capacity[simulated.before.bar]
    return (simulated.ledger.shares.abs() > capacity * (1.0 + TOLERANCE)) & ~simulated.ledger.closed


def _over_the_turnover(simulated: SimulatorStep) -> Tensor:
    ledger, rules, before = simulated.ledger, simulated.environment.rules, simulated.before
    own = rules.pool((ledger.shares.abs() * ledger.price) * (~ledger.closed))
    turnover_left = (rules.turnover - before.turnover).clamp(min=0.0) * ledger.fill_equity
    forced = before.halt == rules.liquidating
    return (own > turnover_left * (1.0 + TOLERANCE) + TOLERANCE) & ~forced & (not rules.leveraged)


def _too_many_positions(simulated: SimulatorStep) -> Tensor:
    rules = simulated.environment.rules
    if not rules.pooled:
        return torch.zeros_like(simulated.after.alive)
    held, was = ((book.value != 0.0).sum(-1) for book in (simulated.after, simulated.before))
    return held > torch.maximum(was, torch.full_like(was, rules.open_positions))


def _untradable(simulated: SimulatorStep) -> Tensor:
    fillable = simulated.environment.market.fillable[simulated.after.bar]
    return (simulated.ledger.shares != 0.0) & ~fillable & ~simulated.ledger.closed


def _halted_buys(simulated: SimulatorStep) -> Tensor:
    blocked = simulated.environment.rules.blocked(simulated.before.halt)
    return _grown(simulated) & blocked


def _not_a_number(simulated: SimulatorStep) -> Tensor:
    reported = [step.reward for step in simulated.timestep.groups.values()]
    for step in simulated.timestep.groups.values():
        reported += [value for value in step.observation.values() if value.is_floating_point()]
    return torch.stack([~torch.isfinite(value).all() for value in [*reported, simulated.timestep.state]])


def _nothing_allowed(simulated: SimulatorStep) -> Tensor:
    return torch.cat([~step.action_mask.any(-1).flatten() for step in simulated.timestep.groups.values()])


INVARIANTS: dict[str, Callable[[SimulatorStep], Tensor]] = {
    "equity changes by price P&L - commission - slippage - borrow fee + interest": _identity,
    "equity is cash plus positions": _sums,
    "no shares are sold short and no cash is owed unless allowed": _short_or_in_debt,
    "no order exceeds the position cap": _over_the_cap,
    "no order exceeds its share of the volume": _over_the_volume,
    "no session exceeds the turnover limit": _over_the_turnover,
    "no order exceeds the number of open positions": _too_many_positions,
    "nothing trades without a tradable bar": _untradable,
    "a tripped account opens and adds to nothing": _halted_buys,
    "everything reported is a finite number": _not_a_number,
    "every agent has an allowed action": _nothing_allowed,
}
