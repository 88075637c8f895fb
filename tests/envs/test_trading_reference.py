"""The batched simulator against the plain one, over random episodes on hostile markets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from marl_pipeline.config import load_params
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.trading.core.actions import encode_directive
from marl_pipeline.envs.trading.core.limits import Rules
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode
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


def play(
    seed: int,
    mode: Mode,
    bars_per_session: int,
    changes: dict[str, Any],
    bars: int = 24,
    account_of: list[int] | None = None,
) -> None:
    rng = np.random.default_rng(seed)
    size, envs = 5, 4
    panel = hostile(rng, bars, size, bars_per_session)
    params = market_params(volume_window=3, **changes)
    directives = load_params().train_master.directives
    env = TradingEnv(
        Market.from_panel(panel, params),
        params,
        directives,
        mode=mode,
        account_of=account_of,
        num_envs=envs,
        span=Span(0, bars),
        seed=seed,
    )
    games = [PlainGame(PlainMarket(panel, params), env.rules.pooled, 0, None, account_of) for _ in range(envs)]
    step, count = env.reset(), len(games[0].accounts)
    if mode == "portfolio":
        active = [[encode_directive(3, 3, 1)] * count] * envs
    for t in range(bars - 1):
        for e, game in enumerate(games):
            if mode == "portfolio":
                for account, directive in zip(game.accounts, active[e], strict=True):
                    account.directive = directive_of(directive, directives, params)
            masks = {n: game.mask(account, n) for account in game.accounts for n in account.names}
            assert step.groups["symbols"].action_mask[e].tolist() == [masks[n] for n in range(size)], (t, e)
        actions = torch.from_numpy(rng.choice(7, (envs, size), p=[0.2, 0.1, 0.1, 0.2, 0.1, 0.2, 0.1]))
        master = torch.from_numpy(rng.integers(48, size=(envs, count)))
        acts = env.book.steps % directives.decide_every == 0
        before = [[game.equity(account) for account in game.accounts] for game in games]
        step = env.step({"symbols": actions, "master": master} if mode == "portfolio" else {"symbols": actions})
        for e, game in enumerate(games):
            game.step(actions[e].tolist())
            compare(env, e, game, before[e], step)
        if mode == "portfolio":
            said = master.tolist()
            active = [new if acts[e] else old for e, (new, old) in enumerate(zip(said, active, strict=True))]
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
        tripped = step.info["kill_switch"].view_as(book.equity)[e, a]
        assert bool(tripped) == ("kill switch" in account.events)
        group = "master" if env.rules.pooled else "symbols"
        floor = 1e-6 * account.capital
        ruined = before[a] <= floor  # out of the game, whatever its position is worth later
        growth = 0.0 if ruined else float(np.log(max(equity, floor) / before[a]))
        expected = growth * env.params.reward_scale
        assert float(step.groups[group].reward[e, a]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


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


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("account_of", [[0, 1, 0, 2, 1], [1, 1, 1, 0, 1], [2, 1, 0, 3, 4]], ids=str)
def test_portfolios_of_segments_equal_the_plain_ones(account_of: list[int], changes: dict[str, Any]) -> None:
    for seed in range(2):
        play(seed, "portfolio", 1 + seed % 2, changes, account_of=account_of)


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
