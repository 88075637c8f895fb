"""The environment as its users see it: protocol, groups, clocks, episodes, directives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from marl_pipeline.config import DirectivesParams, load_params
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.conformance import check_environment
from marl_pipeline.envs.trading.core.actions import (
    DIRECTIVE_ACTIONS,
    Action,
    decode_directive,
    directive_table,
    encode_directive,
)
from marl_pipeline.envs.trading.core.limits import grant_slots
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.errors import UserError
from tests.envs.markets import hostile, market_params, panel


def directives() -> DirectivesParams:
    return load_params().train_master.directives


def hostile_env(mode: Mode, **options: object) -> TradingEnv:
    params = market_params(portfolio_drawdown=0.1, account_drawdown=0.1, cool_down=3)
    market = Market.from_panel(hostile(np.random.default_rng(5), 80, 7, 2), params)
    settings: dict[str, object] = {"num_envs": 6, "span": Span(10, 70), "episode": 12, "seed": 3} | options
    return TradingEnv(market, params, directives(), mode=mode, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["accounts", "portfolio"])
def test_the_environment_keeps_the_protocol(mode: Mode) -> None:
    check_environment(lambda: hostile_env(mode), steps=60)
    check_environment(lambda: hostile_env(mode, random_directives=True), steps=30)


def test_the_joint_action_packs_and_unpacks() -> None:
    actions = torch.arange(DIRECTIVE_ACTIONS)
    index = decode_directive(actions)
    packed = [encode_directive(int(r), int(c), int(m)) for r, c, m in zip(*index, strict=True)]
    assert packed == actions.tolist()
    assert len({tuple(x) for x in torch.stack(tuple(index), -1).tolist()}) == 48


def test_a_directive_never_loosens_a_limit() -> None:
    limits = market_params(position=0.1).limits
    table = directive_table(directives(), limits)
    assert table.shape == (49, 6)
    assert bool((table[:, :3] <= 1.0).all())


def test_the_master_decides_every_few_steps_and_is_obeyed_from_the_next_observation() -> None:
    params = market_params(position=0.2)
    market = Market.from_panel(panel(np.full((20, 3), 10.0)), params)
    env = TradingEnv(market, params, directives(), mode="portfolio", num_envs=1, span=Span(0, 20))
    step = env.reset()
    hold = torch.zeros(1, 3, dtype=torch.int64)
    low = torch.tensor([[encode_directive(0, 0, 0)]])
    acts, risks = [], []
    for _ in range(9):
        acts.append(bool(step.groups["master"].acts[0, 0]))
        risks.append(round(float(step.groups["symbols"].observation["directive"][0, 0, 0]), 6))
        step = env.step(
            {"symbols": hold, "master": low if len(acts) > 4 else torch.tensor([[encode_directive(1, 1, 1)]])}
        )
    assert acts == [True, False, False, False, True, False, False, False, True]
    assert risks == [1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]


def test_a_whole_span_is_played_from_its_start_to_its_last_bar() -> None:
    params = market_params()
    market = Market.from_panel(panel(np.full((12, 2), 10.0)), params)
    env = TradingEnv(market, params, mode="accounts", num_envs=2, span=Span(3, 9))
    step, bars = env.reset(), []
    while not bool(step.done.all()):
        bars.append(int(step.groups["symbols"].observation["bar"][0, 0]))
        step = env.step({"symbols": torch.full((2, 2), int(Action.BUY_LARGE))})
    assert bars == [3, 4, 5, 6, 7]
    assert step.groups["symbols"].observation["bar"].unique().tolist() == [8]
    assert bool(step.truncated.all())
    assert bool((step.groups["symbols"].discount == 1).all())


def test_a_finished_episode_stands_still_until_it_is_reset() -> None:
    env = hostile_env("portfolio", episode=None, span=Span(0, 6))
    step = env.reset()
    actions = {"symbols": torch.full((6, 7), int(Action.BUY_LARGE)), "master": torch.zeros(6, 1, dtype=torch.int64)}
    for _ in range(5):
        step = env.step(actions)
    assert bool(step.done.all())
    equity = env.book.equity.clone()
    step = env.step({**actions, "symbols": torch.full((6, 7), int(Action.SELL_ALL))})
    assert bool(step.done.all())
    assert torch.equal(env.book.equity, equity)


def test_episodes_start_only_where_they_may() -> None:
    env = hostile_env("accounts", start_bars=[0, 12, 31, 31, 69], num_envs=64)
    starts = torch.stack([env.reset().groups["symbols"].observation["bar"][:, 0] for _ in range(5)])
    assert starts.unique().tolist() == [12, 31]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"episode": 60}, "cannot hold an episode"),
        ({"start_bars": [69]}, "allowed starts"),
        ({"span": Span(70, 71), "episode": None}, "no step"),
        ({"span": Span(0, 81), "episode": None}, "no step"),
    ],
)
def test_too_little_history_is_one_clear_line(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        hostile_env("accounts", **options)


def test_symbols_out_of_play_hold_nothing_and_do_not_act() -> None:
    in_universe = [True, False, True, False, True, True, False]
    env = hostile_env("portfolio", symbols=in_universe)
    env.reset()
    for _ in range(11):
        step = env.step(
            {"symbols": torch.full((6, 7), int(Action.BUY_LARGE)), "master": torch.zeros(6, 1, dtype=torch.int64)}
        )
        assert step.groups["symbols"].acts[0].tolist() == in_universe
        assert not bool(env.book.shares[:, ~torch.tensor(in_universe)].any())


def test_random_directives_meet_all_of_them_and_leave_the_rest_alone() -> None:
    env = hostile_env("accounts", random_directives=True, num_envs=64)
    seen = env.reset().groups["symbols"].observation["directive"].flatten(0, 1).unique(dim=0)
    assert len(seen) == 48
    plain = hostile_env("accounts")
    assert plain.reset().groups["symbols"].observation["directive"][0, 0].tolist() == [1, 1, 1, 0, 1, 0]


def test_slots_go_to_larger_orders_first_and_then_round() -> None:
    action = torch.tensor([[1, 3, 2, 1, 3, 1]])
    opening = torch.tensor([[True, True, True, True, True, False]])

    def granted(first: int, slots: int) -> list[int]:
        given = grant_slots(opening, action, torch.tensor([[first]]), torch.tensor([[float(slots)]]))
        return torch.nonzero(given[0]).flatten().tolist()

    assert granted(0, 0) == []
    assert granted(0, 1) == [1]
    assert granted(2, 1) == [4]
    assert granted(0, 2) == [1, 4]
    assert granted(0, 3) == [1, 2, 4]
    assert granted(0, 4) == [0, 1, 2, 4]
    assert granted(1, 4) == [1, 2, 3, 4]
    assert granted(0, 9) == [0, 1, 2, 3, 4]


def test_refused_actions_are_executed_as_hold_and_counted() -> None:
    env = hostile_env("accounts")
    env.reset()
    step = env.step({"symbols": torch.full((6, 7), int(Action.SELL_ALL))})
    assert step.info["chosen"].tolist() == [7] * 6
    assert step.info["executed"].tolist() == [0] * 6
    assert not bool(env.executed.any())


def test_actions_of_the_wrong_shape_are_refused() -> None:
    env = hostile_env("accounts")
    env.reset()
    with pytest.raises(ValueError, match="must be"):
        env.step({"symbols": torch.zeros(6, 6, dtype=torch.int64)})


def test_symbol_rewards_with_carry_sum_to_the_return_of_the_portfolio() -> None:
    env = hostile_env("portfolio")
    generator = torch.Generator().manual_seed(0)
    env.reset()
    for _ in range(11):
        before = env.book.equity
        drawn = torch.randint(7, (6, 7), generator=generator)
        step = env.step({"symbols": drawn, "master": torch.zeros(6, 1, dtype=torch.int64)})
        ledger = env.ledger
        assert ledger is not None
        returns = (ledger.equity - before - ledger.interest + ledger.borrow) / before * env.params.reward_scale
        total = step.groups["symbols"].reward.sum(-1, keepdim=True)
        assert torch.allclose(total.double(), returns, atol=1e-4)
