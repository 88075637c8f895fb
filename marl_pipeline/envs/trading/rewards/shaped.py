"""Rewards of symbol agents beside `net`: the guide's shaped preset, and its terms as potentials on top of `net`.

`net` (change of log equity after all costs) is computed by the environment itself and is the measure of every control
and gate. docs/rewards.md gives each term as a formula, with its unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from marl_pipeline.config import GuideParams
from marl_pipeline.envs.trading.core.accounts import Ledger
from marl_pipeline.envs.trading.core.actions import ACTIONS, Action
from marl_pipeline.envs.trading.core.book import Book
from marl_pipeline.envs.trading.core.partition import Partition
from marl_pipeline.envs.trading.rewards.component_log import ComponentLog

Preset = Literal["guide_v3_2", "net_shaped"]

COMPONENTS: tuple[str, ...] = (
    "pnl",
    "cost",
    "timing",
    "sharpe",
    "drawdown",
    "utilisation",
    "diversification",
)
"""The guide's seven, in the order of `RewardConfig.weights`."""

SHAPED_COMPONENTS: tuple[str, ...] = ("net", "shaping")

LEAST_VARIANCE = 1e-8
"""Of a return (one basis point squared): below it a Sharpe ratio says nothing."""


@dataclass(frozen=True)
class RewardConfig:
    """Numbers of the preset `guide_v3_2`. Money is in units of the account's initial capital.

    Attributes:
        weights: of the seven components.
        unrealized_pnl_weight: of the change of unrealised P&L beside the realised.
        entry_multipliers: on the P&L of what was bought by BUY_SMALL, BUY_MEDIUM, BUY_LARGE.
        add_to_winner_multiplier: on what was added, at full confidence; 1 at none. Confidence is the open gain at the
            decision over `confident_gain`, at most 1.
        exit_multipliers: on the P&L realised by SELL_PARTIAL, by SELL_ALL, and by SELL_ALL after a partial sale.
        hold_winning, hold_losing: paid for HOLD with an open position, where something else was allowed.
        drawdown_limit, drawdown_multiplier: a drawdown inside a trade beyond the limit counts that many times.
        utilisation_per_bar: for a position at its cap, in proportion below.
        diversity_bonus: for actions spread evenly over all seven, in proportion to their entropy.
        repeat_penalty: for the action chosen before, where something else was allowed.
        memory: weight of the newest step in the running figures (Sharpe ratio, action frequencies).
    """

    weights: tuple[float, float, float, float, float, float, float] = (10.0, 5.0, 2.0, 3.0, 5.0, 0.5, 1.0)
    unrealized_pnl_weight: float = 0.0
    entry_multipliers: tuple[float, float, float] = (1.2, 1.0, 0.8)
    add_to_winner_multiplier: float = 1.3
    confident_gain: float = 0.05
    exit_multipliers: tuple[float, float, float] = (0.8, 1.0, 1.1)
    hold_winning: float = -0.01
    hold_losing: float = -0.005
    drawdown_limit: float = 0.10
    drawdown_multiplier: float = 2.0
    utilisation_per_bar: float = 0.01
    diversity_bonus: float = 0.07
    repeat_penalty: float = 0.05
    memory: float = 1.0 / 32.0

    @classmethod
    def of(cls, params: GuideParams) -> RewardConfig:
        """The coefficients that `market.guide` names; the defaults above are the guide's own."""
        weights = tuple(getattr(params.weights, name) for name in COMPONENTS)
        return cls(**{**params.model_dump(), "weights": weights})


@dataclass(frozen=True)
class TradeState:
    """What the shaper remembers of each symbol; [E, N].

    Attributes:
        basis: float64 money paid for the shares held, before costs.
        entry: float64 multiplier of the open position, by money.
        best: float64 best mark since the position was opened, 0 when flat.
        staged: bool, part of it was sold by choice.
        action: int64 the last one chosen, -1 at the start.
        mean, square: float64 running moments of the return.
        frequency: [E, N, actions] float64 running frequencies.
    """

    basis: Tensor
    entry: Tensor
    best: Tensor
    staged: Tensor
    action: Tensor
    mean: Tensor
    square: Tensor
    frequency: Tensor

    @classmethod
    def fresh(cls, num_envs: int, size: int, device: torch.device) -> TradeState:
        none = torch.zeros(num_envs, size, dtype=torch.float64, device=device)
        return cls(
            basis=none,
            entry=none,
            best=none,
            staged=torch.zeros_like(none, dtype=torch.bool),
            action=torch.full_like(none, -1, dtype=torch.int64),
            mean=none,
            square=none,
            frequency=none.unsqueeze(-1).expand(-1, -1, len(ACTIONS)).clone(),
        )

    def where(self, mask: Tensor, other: TradeState) -> TradeState:
        """`other` where the [E, N] `mask` is True, this one elsewhere."""
        mixed = {}
        for field in fields(self):
            mine: Tensor = getattr(self, field.name)
            here = mask.view(*mask.shape, *([1] * (mine.dim() - 2)))
            mixed[field.name] = torch.where(here, getattr(other, field.name), mine)
        return TradeState(**mixed)

    def tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Step:
    """One step of the books, as a shaper reads it.

    Attributes:
        before, after: the books at `t` and `t + 1`.
        ledger: what happened in between.
        executed: [E, N] int64 actions.
        net: [E, N] what `net` pays the symbol, unscaled.
        active: [E, N] bool, the agent lived and played.
        choice: [E, N] bool, more than HOLD was allowed.
    """

    before: Book
    after: Book
    ledger: Ledger
    executed: Tensor
    net: Tensor
    active: Tensor
    choice: Tensor


class RewardShaper:
    """Rewards of the symbol agents under a preset, with every component logged.

    `guide_v3_2` pays the weighted sum of the seven components. `net_shaped` pays `net` plus
    `gamma Phi(s') - Phi(s)` (Ng, Harada & Russell 1999), with

        Phi = diversity_bonus x diversity - drawdown beyond the limit inside the trade x weight of the position

    and Phi = 0 once the agent's future has ended (Grzes 2017), so that the best policy stays that of `net`; with
    several agents, each with a potential of its own, the equilibria stay (Devlin & Kudenko 2011). Both are paid in
    units in which `weights[0]` x P&L is `reward_scale` x P&L.

    Args:
        cap: the most value / equity of one position.
        capital: [A] float64 of the accounts at the start.
        gamma: the learner's discount per step.

    Attributes:
        log: components per step and episode, in the guide's own numbers (before that change of units).
        state: what is remembered of the open trades.
    """

    def __init__(
        self,
        preset: Preset,
        config: RewardConfig,
        *,
        cap: float,
        capital: Tensor,
        partition: Partition,
        reward_scale: float,
        gamma: float,
        num_envs: int,
        size: int,
        device: torch.device,
    ) -> None:
        self.preset, self.config = preset, config
        self._each, self._cap, self._gamma = partition.spread, cap, gamma
        self._capital = self._each(capital.unsqueeze(0))
        self._unit = reward_scale / config.weights[0]
        self._weights = torch.tensor(config.weights, dtype=torch.float64, device=device)
        self._actions = torch.arange(len(ACTIONS), device=device)
        self._entry = torch.zeros(len(ACTIONS), dtype=torch.float64, device=device)
        small, medium, large = config.entry_multipliers
        for action, multiplier in ((Action.BUY_SMALL, small), (Action.BUY_MEDIUM, medium), (Action.BUY_LARGE, large)):
            self._entry[action] = multiplier
        names = COMPONENTS if preset == "guide_v3_2" else SHAPED_COMPONENTS
        self.log = ComponentLog(names, num_envs, size, device)
        self.state = TradeState.fresh(num_envs, size, device)

    def reset(self, where: Tensor) -> None:
        """Forgets the environments where the [E] mask is True."""
        envs, size = self.state.basis.shape
        fresh = TradeState.fresh(envs, size, self.state.basis.device)
        self.state = self.state.where(where.unsqueeze(-1).expand(envs, size), fresh)
        self.log.reset(where)

    def step(self, step: Step) -> Tensor:
        """Reward of every symbol agent, [E, N] float32."""
        old = self.state
        new = self._remember(old, step)
        self.state = old.where(step.active, new)
        if self.preset == "guide_v3_2":
            components = self._guide(old, new, step) * self._weights
        else:
            alive = self._each(step.after.alive.double())
            gain = self._gamma * self.potential(new, step.after) * alive - self.potential(old, step.before)
            components = torch.stack([self.config.weights[0] * step.net, gain], -1)
        components = components * step.active.unsqueeze(-1)
        self.log.add(components, step.active)
        return (components.sum(-1) * self._unit).float()

    def potential(self, state: TradeState, book: Book) -> Tensor:
        """Phi of the trades `state` in the books `book`, [E, N] float64."""
        excess = (_trade_drawdown(state, book) - self.config.drawdown_limit).clamp(min=0.0)
        return self.config.diversity_bonus * _diversity(state.frequency) - excess * self._weight(book)

    def settlement(self, book: Book) -> Tensor:
        """What is still to be paid if the future of every agent ends at `book`: [E, N] float32.

        `net_shaped` gives back the potential (Phi = 0 after the end); `guide_v3_2` owes nothing.
        """
        if self.preset == "guide_v3_2":
            return torch.zeros_like(book.value, dtype=torch.float32)
        return (-self._unit * self.potential(self.state, book) * self._each(book.alive.double())).float()

    def state_dict(self) -> dict[str, Any]:
        return {"state": _copied(self.state.tensors()), "log": _copied(self.log.tensors())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        device = self.state.basis.device
        self.state = TradeState(**{name: tensor.to(device).clone() for name, tensor in state["state"].items()})
        self.log.load(state["log"])

    def _remember(self, old: TradeState, step: Step) -> TradeState:
        ledger, config = step.ledger, self.config
        bought, sold = ledger.shares.clamp(min=0.0), (-ledger.shares).clamp(min=0.0)
        held = ledger.holding > 0.0
        kept = old.basis * (1.0 - _share_sold(step, sold))
        paid = bought * ledger.price
        gain = step.before.value / old.basis.clamp(min=1e-12) - 1.0
        confidence = (gain / config.confident_gain).clamp(0.0, 1.0)
        added = 1.0 + (config.add_to_winner_multiplier - 1.0) * confidence
        multiplier = torch.where(step.executed == int(Action.ADD_TO_WINNER), added, self._entry[step.executed])
        basis = (kept + paid) * held
        entry = (old.entry * kept + multiplier * paid) / basis.clamp(min=1e-12) * held
        best = torch.maximum(torch.where(old.best > 0.0, old.best, ledger.price), step.after.mark) * held
        taken = (step.executed.unsqueeze(-1) == self._actions).double()  # one_hot would wait for the device
        frequency = old.frequency + config.memory * (taken - old.frequency) * step.choice.unsqueeze(-1)
        return TradeState(
            basis=basis,
            entry=entry,
            best=best,
            staged=(old.staged | ((step.executed == int(Action.SELL_PARTIAL)) & (sold > 0.0))) & held,
            action=torch.where(step.choice, step.executed, old.action),
            mean=old.mean + config.memory * (step.net - old.mean),
            square=old.square + config.memory * (step.net**2 - old.square),
            frequency=frequency,
        )

    def _guide(self, old: TradeState, new: TradeState, step: Step) -> Tensor:
        """The seven components, unweighted: [E, N, 7] float64."""
        config, ledger, before, after = self.config, step.ledger, step.before, step.after
        held = before.shares > 0.0
        sold = (-ledger.shares).clamp(min=0.0)
        realised = sold * ledger.price - old.basis * _share_sold(step, sold)
        unrealised = (after.value - new.basis) - (before.value - old.basis)
        pnl = realised * old.entry * self._exit_multiplier(old, step.executed)
        pnl = (pnl + config.unrealized_pnl_weight * unrealised) / self._capital

        hold = (step.executed == int(Action.HOLD)) & held & step.choice
        winning = before.value > old.basis
        patience = hold * torch.where(winning, config.hold_winning, config.hold_losing)
        equity = self._each(before.equity.clamp(min=1e-9))
        timing = ledger.shares * (after.mark - ledger.price) / equity + patience

        drawdown = _trade_drawdown(new, after)
        beyond = torch.where(drawdown > config.drawdown_limit, config.drawdown_multiplier, 1.0)
        repeated = ((step.executed == old.action) & step.choice).double()
        return torch.stack(
            [
                pnl,
                -(ledger.commission + ledger.slippage) / self._capital,
                timing,
                self._differential_sharpe(old, step.net),
                -drawdown * beyond * self._weight(after),
                config.utilisation_per_bar * (self._weight(after) / self._cap).clamp(max=1.0),
                config.diversity_bonus * _diversity(new.frequency) - config.repeat_penalty * repeated,
            ],
            dim=-1,
        )

    def _weight(self, book: Book) -> Tensor:
        """[E, N] value / equity, 0..1."""
        return (book.value / self._each(book.equity.clamp(min=1e-9))).clamp(0.0, 1.0)

    def _exit_multiplier(self, old: TradeState, executed: Tensor) -> Tensor:
        """[E, N]; what the rules sell by force counts as it is."""
        partial, whole, staged = self.config.exit_multipliers
        full = torch.where(old.staged, staged, whole)
        chosen = torch.where(executed == int(Action.SELL_ALL), full, 1.0)
        return torch.where(executed == int(Action.SELL_PARTIAL), partial, chosen).double()

    def _differential_sharpe(self, old: TradeState, net: Tensor) -> Tensor:
        """What this return adds to the running Sharpe ratio, within -1..1 (Moody & Saffell 2001, eq. 9)."""
        variance = old.square - old.mean**2
        rise = old.square * (net - old.mean) - 0.5 * old.mean * (net**2 - old.square)
        ratio = rise / variance.clamp(min=LEAST_VARIANCE) ** 1.5
        return (self.config.memory * ratio * (variance > LEAST_VARIANCE)).clamp(-1.0, 1.0)


def _share_sold(step: Step, sold: Tensor) -> Tensor:
    return (sold / step.before.shares.clamp(min=1e-200)).clamp(max=1.0)


def _trade_drawdown(state: TradeState, book: Book) -> Tensor:
    """[E, N] of the mark from its best since the position was opened; 0 when flat."""
    return (1.0 - book.mark / state.best.clamp(min=1e-300)).clamp(min=0.0) * (state.best > 0.0)


def _diversity(frequency: Tensor) -> Tensor:
    """[E, N] entropy of the running action frequencies over that of the even spread, 0..1; 0 before the first."""
    share = frequency / frequency.sum(-1, keepdim=True).clamp(min=1e-12)
    entropy: Tensor = torch.special.entr(share).sum(-1)
    return entropy / math.log(len(ACTIONS))


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu().clone() for name, tensor in tensors.items()}
