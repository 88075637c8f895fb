"""The batched simulator against the plain one, over random episodes on hostile markets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from marl_pipeline.config import load_params
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.trading.core.actions import encode_directive
from marl_pipeline.envs.trading.core.limits import Mode, Rules
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.env import TradingEnv
from tests.envs.markets import hostile, market_params
from tests.envs.reference import PlainGame, PlainMarket

STRICT = {"open_positions": 2, "trades_per_day": 1, "turnover_per_day": 0.3, "min_cash": 0.1, "position": 0.4}
NERVOUS = {"account_drawdown": 0.02, "portfolio_drawdown": 0.02, "cool_down": 2, "open_positions": 3}
MARGIN = {
    "gross_leverage": 2.0,
    "position": 0.9,
    "borrow_rate": 0.3,
    "portfolio_drawdown": 0.9,
    "entry_sizes": (0.5, 1, 1),
}
COSTLY = {"commission_bps_round_trip": 500.0, "impact": 5.0, "cash_rate": 0.5, "participation": 0.01}
SHORT = {"allow_short": True, "borrow_rate": 0.3, "cash_rate": 0.1}
CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "strict": STRICT,
    "nervous": NERVOUS,
    "costly": COSTLY,
    "short": SHORT,
    "short strict": SHORT | STRICT,
    "short nervous": SHORT | NERVOUS,
    "short costly": SHORT | COSTLY,
}


def play(seed: int, mode: Mode, bars_per_session: int, changes: dict[str, Any], bars: int = 24) -> None:
    rng = np.random.default_rng(seed)
    size, envs = 5, 4
    panel = hostile(rng, bars, size, bars_per_session)
    params = market_params(volume_window=3, **changes)
    directives = load_params().train_master.directives
    env = TradingEnv(
        Market.from_panel(panel, params), params, directives, mode=mode, num_envs=envs, span=Span(0, bars), seed=seed
    )
    games = [PlainGame(PlainMarket(panel, params), env.rules.pooled, 0) for _ in range(envs)]
    step = env.reset()
    if mode == "portfolio":
        in_force = [encode_directive(3, 3, 1)] * envs
    for t in range(bars - 1):
        for e, game in enumerate(games):
            if mode == "portfolio":
                game.directive = tuple(directive_of(in_force[e], directives, params))  # type: ignore[assignment]
            expected = [game.mask(account, n) for account in game.accounts for n in account.names]
            assert step.groups["symbols"].action_mask[e].tolist() == expected, (t, e)
        actions = torch.from_numpy(rng.choice(7, (envs, size), p=[0.2, 0.1, 0.1, 0.2, 0.1, 0.2, 0.1]))
        master = torch.from_numpy(rng.integers(48, size=(envs, 1)))
        acts = step.groups["master"].acts[:, 0].tolist() if mode == "portfolio" else []
        before = [[game.equity(account) for account in game.accounts] for game in games]
        step = env.step({"symbols": actions, "master": master} if mode == "portfolio" else {"symbols": actions})
        for e, game in enumerate(games):
            game.step(actions[e].tolist())
            compare(env, e, game, before[e], step)
        if mode == "portfolio":
            said = master[:, 0].tolist()
            in_force = [new if acts[e] else old for e, (new, old) in enumerate(zip(said, in_force, strict=True))]
    assert bool(step.done.all())


def directive_of(action: int, directives: Any, params: Any) -> tuple[float, float, float]:
    risk, rest = divmod(action, 12)
    cap, mode = divmod(rest, 3)
    share = min(directives.position_caps[cap] / params.limits.position, 1.0)
    return directives.risk_multipliers[risk], share, directives.open_positions[mode]


def compare(env: TradingEnv, e: int, game: PlainGame, before: list[float], step: Any) -> None:
    close = {"rel": 1e-9, "abs": 1e-5}
    book, ledger = env.book, env.ledger
    assert ledger is not None
    for a, account in enumerate(game.accounts):
        equity = game.equity(account)
        assert float(book.cash[e, a]) == pytest.approx(account.cash, **close)
        assert float(book.equity[e, a]) == pytest.approx(equity, **close)
        assert float(book.turnover[e, a]) == pytest.approx(account.turnover, **close)
        assert halt_name(env.rules, int(book.halt[e, a])) == account.halt
        for n in account.names:
            assert float(book.shares[e, n]) == pytest.approx(game.held(account, n), rel=1e-9, abs=1e-12)
            assert float(book.invested[e, n]) == pytest.approx(account.invested.get(n, 0.0), **close)
            assert bool(ledger.closed[e, n]) == (f"closed {n}" in account.events)
        tripped = step.info["kill_switch"][e] if env.rules.pooled else step.info["kill_switch"][e, a]
        assert bool(tripped) == ("kill switch" in account.events)
        group, agent = ("master", 0) if env.rules.pooled else ("symbols", a)
        floor = 1e-6 * env.params.initial_cash
        expected = np.log(max(equity, floor) / max(before[a], floor)) * env.params.reward_scale
        assert float(step.groups[group].reward[e, agent]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def halt_name(rules: Rules, halt: int) -> str:
    if halt == rules.liquidating:
        return "liquidating"
    if halt > rules.cool_down:
        return "flat"
    return "reduced" if halt > 0 else "normal"


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("bars_per_session", [1, 4])
@pytest.mark.parametrize("mode", ["accounts", "portfolio"])
def test_the_batched_simulator_equals_the_plain_one(mode: Mode, bars_per_session: int, changes: dict[str, Any]) -> None:
    for seed in range(2):
        play(seed, mode, bars_per_session, changes)


@pytest.mark.parametrize("changes", [MARGIN, SHORT | MARGIN], ids=["long", "short"])
@pytest.mark.parametrize("seed", range(4))
def test_the_batched_simulator_equals_the_plain_one_on_margin(seed: int, changes: dict[str, Any]) -> None:
    play(seed, "portfolio", 1, changes, bars=12)


@pytest.mark.slow
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("mode", ["accounts", "portfolio"])
def test_the_batched_simulator_equals_the_plain_one_over_many_episodes(mode: Mode, changes: dict[str, Any]) -> None:
    for seed in range(100, 130):
        play(seed, mode, 1 + seed % 3, changes, bars=40)
