"""The smoke test passes on a sound simulator, sees a broken one, and says how large every component is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from marl_pipeline.config import load_params
from marl_pipeline.data.windows import Span
from marl_pipeline.diagnostics.smoke import INVARIANTS, SmokeResult, smoke
from marl_pipeline.envs.trading import env
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode
from tests.envs.markets import hostile, market_params


def smoke_test(mode: Mode, steps: int = 400, **changes: Any) -> SmokeResult:
    params = market_params(portfolio_drawdown=0.1, account_drawdown=0.1, cool_down=3, **changes)
    market = Market.from_panel(hostile(np.random.default_rng(5), 80, 7, 2), params)
    return smoke(market, params, load_params().train_master.directives, mode, span=Span(10, 70), steps=steps)


@pytest.mark.parametrize("leverage", [1.0, 2.0])
@pytest.mark.parametrize("mode", ["accounts", "portfolio"])
def test_a_sound_simulator_passes_on_a_hostile_market(mode: Mode, leverage: float) -> None:
    result = smoke_test(mode, gross_leverage=leverage, open_positions=3)
    assert result.passed, result.violations
    assert result.worst_identity < 1e-12
    assert result.steps == 400
    assert result.symbol_steps == 2800
    assert result.magnitudes["price_pnl"] > result.magnitudes["commission"] > 0.0
    assert result.components == {}


def test_components_of_a_preset_are_measured() -> None:
    components = smoke_test("portfolio", reward="guide_v3_2", master_reward="risk_adjusted").components
    assert set(components) == {"symbols", "master"}
    assert all(size > 0.0 for group in components.values() for size in group.values())


LEDGERS = {
    "equity changes by": {"commission": 0.5},
    "no order exceeds the position cap": {"shares": 1.0, "holding": 1e6},
    "no order exceeds its share": {"shares": -1e12},
    "nothing trades without": {"shares": 1.0},
}


@pytest.mark.parametrize("words", LEDGERS)
def test_a_broken_ledger_is_seen(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = env.TradingEnv.step

    def broken(self: env.TradingEnv, actions: Any) -> Any:
        timestep, errors = sound(self, actions), LEDGERS[words]
        ledger = self.ledger
        assert ledger is not None
        self.ledger = ledger._replace(**{name: getattr(ledger, name) + error for name, error in errors.items()})
        return timestep

    monkeypatch.setattr(env.TradingEnv, "step", broken)
    result = smoke_test("portfolio", steps=64)
    assert not result.passed
    assert any(count for name, count in result.violations.items() if name.startswith(words))


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("no session exceeds the turnover", {"turnover": 1e-4}),
        ("no order exceeds the number", {"open_positions": 1}),
    ],
)
def test_a_limit_that_is_not_enforced_is_seen(
    words: str, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The book plays by looser rules than those it is judged by."""
    loose = env.TradingEnv.step

    def step(self: env.TradingEnv, actions: Any) -> Any:
        strict = self.rules
        self.rules = replace(strict, open_positions=20, turnover=2.0)
        try:
            return loose(self, actions)
        finally:
            self.rules = replace(strict, **change)

    monkeypatch.setattr(env.TradingEnv, "step", step)
    result = smoke_test("portfolio", steps=160)
    assert next(count for name, count in result.violations.items() if name.startswith(words)) > 0


def test_every_invariant_has_a_name_that_says_it() -> None:
    assert len(INVARIANTS) == 11
    assert set(smoke_test("accounts", steps=16).violations) == set(INVARIANTS)
