"""Rewards: `net` is untouched, the guide's terms are what they say, potentials telescope, the log tells it all."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from marl_pipeline.config import load_params, parse_params
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.conformance import check_environment, check_equal, tensors_of
from marl_pipeline.envs.sampling import random_actions
from marl_pipeline.envs.trading.core.actions import Action
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.envs.trading.rewards.component_log import ComponentLog, Recorded, check_balance
from marl_pipeline.envs.trading.rewards.shaped import COMPONENTS, RewardConfig
from marl_pipeline.errors import UserError
from tests.envs.markets import hostile, market_params, panel

MODES: tuple[Mode, ...] = ("accounts", "portfolio")
PRESETS = ("guide_v3_2", "net_shaped")


def hostile_env(mode: Mode, reward: str, master: str = "net", **options: Any) -> TradingEnv:
    params = market_params(
        reward=reward, master_reward=master, portfolio_drawdown=0.1, account_drawdown=0.1, cool_down=3
    )
    market = Market.from_panel(hostile(np.random.default_rng(5), 80, 7, 2), params)
    settings: dict[str, Any] = {"num_envs": 6, "span": Span(10, 70), "episode": 20, "seed": 3, **options}
    return TradingEnv(market, params, load_params().train_master.directives, mode=mode, **settings)


def play(close: list[float], actions: list[Action], **changes: Any) -> tuple[TradingEnv, list[dict[str, float]]]:
    """One symbol under `guide_v3_2`, without costs unless given; the unweighted components of every step."""
    free = {"commission_bps_round_trip": 0.0, "slippage_bps": 0.0, "impact": 0.0, "account_drawdown": 1.0}
    params = market_params(reward="guide_v3_2", **{**free, **changes})
    market = Market.from_panel(panel([[price] for price in close]), params)
    env = TradingEnv(market, params, mode="accounts", num_envs=1, span=Span(0, len(close)))
    env.reset()
    paid = []
    for action in actions:
        step = env.step({"symbols": torch.tensor([[int(action)]])})
        values = env.rewards.logs["symbols"].last[0, 0]
        weights = dict(zip(COMPONENTS, RewardConfig().weights, strict=True))
        raw = {name: float(value) / weights[name] for name, value in zip(COMPONENTS, values, strict=True)}
        assert float(step.groups["symbols"].reward) == pytest.approx(
            float(values.sum()) * params.reward_scale / weights["pnl"], rel=1e-5
        )
        paid.append(raw)
    return env, paid


@pytest.mark.parametrize("mode", MODES)
def test_net_is_the_change_of_log_equity_and_nothing_is_logged(mode: Mode) -> None:
    env = hostile_env(mode, "net")
    generator = torch.Generator().manual_seed(0)
    step = env.reset()
    for _ in range(15):
        before = env.book.equity
        step = env.step(random_actions(env.groups, step, generator))
        wanted = torch.log1p((env.book.equity / before - 1.0).float()) * env.params.reward_scale
        assert torch.equal(env.rewards.net, wanted)
        assert torch.equal(step.groups["symbols" if mode == "accounts" else "master"].reward, wanted)
    assert env.rewards.state_dict() == env.rewards.info() == env.rewards.get_episode_stats() == {}
    assert set(env.state_dict()) == {"book", "terminated", "truncated", "generator"}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("mode", MODES)
def test_a_preset_changes_what_is_paid_and_not_a_bit_of_the_market(mode: Mode, preset: str) -> None:
    plain, shaped = hostile_env(mode, "net"), hostile_env(mode, preset, "risk_adjusted")
    generator = torch.Generator().manual_seed(1)
    own, other = plain.reset(), shaped.reset()
    paid = 0.0
    for _ in range(45):
        actions = random_actions(plain.groups, own, generator)
        own, other = plain.step(actions), shaped.step(actions)
        check_equal(without_rewards(tensors_of(other)), without_rewards(tensors_of(own)), "the rewards change more")
        assert torch.equal(shaped.rewards.net, plain.rewards.net)
        check_equal(shaped.book.tensors(), plain.book.tensors(), "the rewards change the book")
        paid += float((other.groups["symbols"].reward - own.groups["symbols"].reward).abs().sum())
        if bool(own.done.any()):
            own, other = plain.reset(own.done), shaped.reset(other.done)
    assert paid > 1.0


def without_rewards(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("reward")}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("mode", MODES)
def test_shaped_environments_keep_the_protocol_and_resume_bit_for_bit(mode: Mode, preset: str) -> None:
    check_environment(lambda: hostile_env(mode, preset, "risk_adjusted"), steps=50)


@pytest.mark.parametrize("mode", MODES)
def test_potentials_telescope_over_an_episode(mode: Mode) -> None:
    """With gamma = 1 an episode pays net plus Phi(end) - Phi(start), whatever happened in between."""
    env = hostile_env(mode, "net_shaped", gamma=1.0)
    shaper = env.rewards.shaper
    assert shaper is not None
    generator = torch.Generator().manual_seed(2)
    step = env.reset()
    start = shaper.potential(shaper.state, env.book)
    earned = torch.zeros(6, 7, dtype=torch.float64)
    net = torch.zeros_like(earned)
    for _ in range(20):
        step = env.step(random_actions(env.groups, step, generator))
        earned += step.groups["symbols"].reward
        net += env.rewards.logs["symbols"].last[..., 0] * env.params.reward_scale / 10.0
    assert bool(step.truncated.all())
    end = shaper.potential(shaper.state, env.book)
    unit = env.params.reward_scale / RewardConfig().weights[0]
    assert float((end - start).abs().max()) > 0.02
    assert float((earned - net).abs().max()) > 0.2
    assert torch.allclose(earned, net + unit * (end - start), atol=1e-3, rtol=1e-4)


def test_potentials_are_discounted_by_the_learners_gamma() -> None:
    env, twin = (hostile_env("accounts", "net_shaped", gamma=gamma) for gamma in (0.9, 1.0))
    generator = torch.Generator().manual_seed(2)
    step, _ = env.reset(), twin.reset()
    shaper, unit = twin.rewards.shaper, env.params.reward_scale / 10.0
    assert shaper is not None
    for _ in range(10):
        actions = random_actions(env.groups, step, generator)
        step, other = env.step(actions), twin.step(actions)
        active = step.groups["symbols"].discount > 0
        lost = 0.1 * unit * shaper.potential(shaper.state, twin.book)
        gap = other.groups["symbols"].reward - step.groups["symbols"].reward
        assert torch.allclose(gap.double()[active], lost[active], atol=1e-3, rtol=1e-4)


def test_realised_profit_counts_once_it_is_realised_with_the_multipliers_of_entry_and_exit() -> None:
    buy_small, partial, sell = Action.BUY_SMALL, Action.SELL_PARTIAL, Action.SELL_ALL
    _, paid = play([100, 100, 120, 120, 120], [buy_small, Action.HOLD, partial, sell])
    assert [round(step["pnl"], 12) for step in paid[:2]] == [0.0, 0.0]
    # A quarter of the capital gains 20%; half is sold in part (0.8), the rest as a staged exit (1.1); small entry: 1.2.
    assert paid[2]["pnl"] == pytest.approx(0.25 * 0.2 * 0.5 * 1.2 * 0.8)
    assert paid[3]["pnl"] == pytest.approx(0.25 * 0.2 * 0.5 * 1.2 * 1.1)
    _, paid = play([100, 100, 90, 90], [Action.BUY_LARGE, Action.HOLD, sell])
    assert paid[2]["pnl"] == pytest.approx(-0.1 * 0.8)


def test_adding_to_a_winner_counts_by_the_confidence_of_its_gain() -> None:
    add, sell = Action.ADD_TO_WINNER, Action.SELL_ALL
    _, paid = play([100, 100, 102.5, 102.5, 102.5, 102.5], [Action.BUY_MEDIUM, Action.HOLD, add, Action.HOLD, sell])
    # 50,000 gain 2.5%, half of the gain that is sure; a quarter of the equity (101,250) is added at 1.15.
    added = 0.25 * 101250.0
    multiplier = (50000.0 * 1.0 + added * 1.15) / (50000.0 + added)
    assert paid[4]["pnl"] == pytest.approx(50000.0 * 0.025 * multiplier / 100000.0)


def test_costs_are_those_of_the_ledger() -> None:
    env, paid = play([100, 100, 100], [Action.BUY_SMALL, Action.SELL_ALL], commission_bps_round_trip=20.0)
    assert paid[0]["cost"] == pytest.approx(-0.25 * 0.001, rel=1e-6)
    assert paid[0]["cost"] + paid[1]["cost"] == pytest.approx(env.book.equity.item() / 100000.0 - 1.0, rel=1e-6)


def test_holding_is_penalised_when_it_is_a_choice() -> None:
    hold = Action.HOLD
    _, paid = play([100, 100, 110, 110, 90, 90], [Action.BUY_SMALL, hold, hold, hold, hold])
    assert [round(step["timing"], 9) for step in paid] == [0.0, -0.005, -0.01, -0.01, -0.005]
    gone = np.array([[True], [True], [False], [False], [True], [True]])
    params = market_params(reward="guide_v3_2")
    env = TradingEnv(
        Market.from_panel(panel(np.where(gone, 100.0, np.nan)), params),
        params, mode="accounts", num_envs=1, span=Span(0, 6),
    )  # fmt: skip
    env.reset()
    env.step({"symbols": torch.tensor([[int(Action.BUY_SMALL)]])})
    log = env.rewards.logs["symbols"]
    timings = []
    for _ in range(4):
        env.step({"symbols": torch.tensor([[0]])})
        timings.append(round(float(log.last[0, 0, 2]), 6))
    assert timings == [-0.01, 0.0, 0.0, -0.01]  # at a bar without a price there is nothing but HOLD


def test_a_drawdown_inside_a_trade_beyond_a_tenth_counts_twice() -> None:
    _, paid = play([100, 100, 95, 85, 85], [Action.BUY_LARGE, Action.HOLD, Action.HOLD, Action.SELL_ALL])
    assert [step["drawdown"] for step in paid] == pytest.approx([0.0, -0.05, -0.3, 0.0])


def test_diversity_is_paid_and_repetition_is_not() -> None:
    _, paid = play([100.0] * 5, [Action.BUY_SMALL, Action.HOLD, Action.HOLD, Action.SELL_ALL])
    shares = torch.tensor([31 / 32, 1.0]) / (63 / 32)
    entropy = float(-(shares * shares.log()).sum()) / math.log(7)
    assert paid[0]["diversification"] == pytest.approx(0.0)
    assert paid[1]["diversification"] == pytest.approx(0.07 * entropy)
    assert paid[2]["diversification"] < paid[1]["diversification"] - 0.04


def test_a_used_cap_is_paid_per_bar_and_the_sharpe_term_is_bounded() -> None:
    _, paid = play([100.0] * 3, [Action.BUY_MEDIUM, Action.HOLD])
    assert paid[1]["utilisation"] == pytest.approx(0.5 * 0.01)
    _, paid = play([100, 100, 150, 80, 200, 10], [Action.BUY_LARGE] + [Action.HOLD] * 4)
    assert all(abs(step["sharpe"]) <= 1.0 for step in paid)
    assert any(step["sharpe"] != 0.0 for step in paid)


def test_the_master_is_paid_for_return_at_its_risk_spread_and_excess() -> None:
    params = market_params(
        master_reward="risk_adjusted", commission_bps_round_trip=0.0, slippage_bps=0.0, impact=0.0, position=0.2
    )
    close = np.array([[100.0, 100.0], [100.0, 100.0], [110.0, 100.0], [110.0, 100.0]])
    env = TradingEnv(
        Market.from_panel(panel(close), params), params, load_params().train_master.directives,
        mode="portfolio", num_envs=1, span=Span(0, 4),
    )  # fmt: skip
    env.reset()
    master = torch.tensor([[47]])
    env.step({"symbols": torch.full((1, 2), int(Action.BUY_LARGE)), "master": master})
    log = env.rewards.logs["master"]
    assert log.last[0, 0].tolist() == pytest.approx([0.0, 1e-4 * 0.5, 0.0])
    step = env.step({"symbols": torch.zeros(1, 2, dtype=torch.int64), "master": master})
    growth, benchmark = math.log(1.02), math.log(1.05)
    spread = 1.0 - (0.22**2 + 0.2**2) / 0.42**2
    wanted = [growth - 5.0 * growth**2, 1e-4 * spread, 0.5 * (growth - benchmark)]
    assert log.last[0, 0].tolist() == pytest.approx(wanted, rel=1e-5)
    assert float(step.groups["master"].reward) == pytest.approx(sum(wanted) * params.reward_scale, rel=1e-5)
    assert float(env.rewards.net) == pytest.approx(growth * params.reward_scale, rel=1e-5)


def test_the_master_may_be_measured_against_a_given_benchmark() -> None:
    params = market_params(master_reward="risk_adjusted")
    env = TradingEnv(
        Market.from_panel(panel(np.full((4, 2), 50.0)), params), params, load_params().train_master.directives,
        mode="portfolio", num_envs=1, span=Span(0, 4), benchmark=[np.nan, 100.0, 110.0, 110.0],
    )  # fmt: skip
    env.reset()
    flat = {"symbols": torch.zeros(1, 2, dtype=torch.int64), "master": torch.zeros(1, 1, dtype=torch.int64)}
    excess = []
    for _ in range(3):
        env.step(flat)
        excess.append(float(env.rewards.logs["master"].last[0, 0, 2]))
    assert excess == pytest.approx([0.0, -0.5 * math.log(1.1), 0.0])


@pytest.mark.parametrize("mode", MODES)
def test_steps_and_episodes_are_logged_component_by_component(mode: Mode) -> None:
    env = hostile_env(mode, "guide_v3_2", "risk_adjusted", episode=9)
    generator = torch.Generator().manual_seed(4)
    step, paid = env.reset(), torch.zeros(6, 7, dtype=torch.float64)
    for _ in range(9):
        step = env.step(random_actions(env.groups, step, generator))
        paid += step.groups["symbols"].reward
        assert step.info["symbols_pnl"].shape == (6, 7)
    stats = env.rewards.get_episode_stats()
    assert set(stats) == ({"symbols"} if mode == "accounts" else {"symbols", "master"})
    assert tuple(stats["symbols"]) == COMPONENTS
    unit = env.params.reward_scale / 10.0
    assert sum(part["sum"] for part in stats["symbols"].values()) * unit == pytest.approx(float(paid.mean()), abs=1e-4)
    assert sum(part["share"] for part in stats["symbols"].values()) == pytest.approx(1.0)
    history = env.rewards.component_history["symbols"]
    assert {len(values) for values in history.values()} == {9}
    env.reset()
    assert all(part["absolute"] == 0.0 for part in env.rewards.get_episode_stats()["symbols"].values())


def recorded(steps: dict[str, Tensor]) -> Recorded:
    """One agent's components, component -> [L]."""
    values = torch.stack([column.double() for column in steps.values()], -1)
    return Recorded(tuple(steps), values, values.abs(), values**2)


def test_the_balance_counts_agents_that_cancel_out() -> None:
    log = ComponentLog(("opposed", "common"), 1, 2, torch.device("cpu"))
    for step in range(10):
        opposed = [3.0 + step % 2, -3.0 - step % 2]
        values = torch.tensor([[[opposed[0], 1.0 + step % 2], [opposed[1], 1.0 + step % 2]]], dtype=torch.float64)
        log.add(values, torch.ones(1, 2, dtype=torch.bool))
    balance = {part.component: part for part in check_balance(log.recorded())}
    assert balance["opposed"].share == pytest.approx(3.5 / 5.0)
    assert balance["opposed"].flags == ("dominant", "no signal")
    assert balance["common"].signal_to_noise == pytest.approx(1.5 / 0.5)


def test_the_balance_check_flags_dominant_collapsed_and_mute_components() -> None:
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(2000, generator=draw, dtype=torch.float64)
    found = check_balance(
        recorded(
            {
                "loud": 10.0 + noise,
                "dead": torch.zeros(2000),
                "stuck": torch.full((2000,), 0.5),
                "mute": (noise - noise.mean()) * 0.5,
                "fine": 1.0 + 0.5 * noise,
            }
        )
    )
    flags = {part.component: part.flags for part in found}
    assert flags == {
        "loud": ("dominant",), "dead": ("collapsed",), "stuck": ("collapsed",), "mute": ("no signal",), "fine": (),
    }  # fmt: skip
    assert sum(part.share for part in found) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="two recorded steps"):
        check_balance(recorded({"short": torch.zeros(1)}))


def test_an_unknown_reward_is_one_line() -> None:
    values = load_params().model_dump()
    values["market"]["reward"] = "gross"
    with pytest.raises(UserError, match=r"market\.reward.*guide_v3_2"):
        parse_params(values, "params.yaml")


def test_configurations_of_the_preset_are_frozen() -> None:
    config = replace(RewardConfig(), repeat_penalty=0.0)
    assert config.repeat_penalty == 0.0
    with pytest.raises(AttributeError):
        config.repeat_penalty = 1.0  # type: ignore[misc]


def test_the_parameters_are_the_guides_numbers_and_each_counts() -> None:
    guide = market_params().guide
    assert RewardConfig.of(guide) == RewardConfig()
    changed = guide.with_coefficients({"weights.cost": 7.0, "repeat_penalty": 0.5, "hold_losing": -0.3})
    assert RewardConfig.of(changed) == replace(
        RewardConfig(), weights=(10.0, 7.0, 2.0, 3.0, 5.0, 0.5, 1.0), repeat_penalty=0.5, hold_losing=-0.3
    )
    actions = [Action.BUY_SMALL, Action.HOLD, Action.HOLD]
    _, plain = play([100.0] * 4, actions)
    env, paid = play([100.0] * 4, actions, guide=changed.model_dump())
    assert paid[2]["diversification"] == pytest.approx(plain[2]["diversification"] - 0.45)
    assert paid[2]["timing"] == pytest.approx(-0.3)
    assert env.rewards.shaper is not None
    assert float(env.rewards.shaper.settlement(env.book)) == 0.0


@pytest.mark.parametrize("mode", MODES)
def test_what_net_would_pay_is_known_whatever_is_paid(mode: Mode) -> None:
    plain, shaped = hostile_env(mode, "net"), hostile_env(mode, "guide_v3_2")
    generator = torch.Generator().manual_seed(6)
    own, _ = plain.reset(), shaped.reset()
    for _ in range(12):
        actions = random_actions(plain.groups, own, generator)
        own, _ = plain.step(actions), shaped.step(actions)
        assert torch.equal(shaped.rewards.own, own.groups["symbols"].reward)
    shaped.reset()
    assert not shaped.rewards.own.any()


def test_settling_at_the_end_of_an_episode_leaves_net_and_nothing_else() -> None:
    env = hostile_env("accounts", "net_shaped", gamma=1.0)
    generator = torch.Generator().manual_seed(2)
    step = env.reset()
    paid, net = torch.zeros(6, 7, dtype=torch.float64), torch.zeros(6, 7, dtype=torch.float64)
    for _ in range(20):
        step = env.step(random_actions(env.groups, step, generator))
        paid += step.groups["symbols"].reward
        net += env.rewards.own
    assert env.rewards.shaper is not None
    settled = paid + env.rewards.shaper.settlement(env.book)
    assert torch.allclose(settled, net, atol=1e-3, rtol=1e-4)
    assert float((paid - net).abs().max()) > 0.2
