"""One market, played with and without a master."""

from __future__ import annotations

from dataclasses import replace

import pytest

from marl_pipeline.data.windows import Span
from marl_pipeline.envs.trading.core.partition import Mode
from tests.agents.test_training_rewards import trading


@pytest.mark.parametrize(
    ("mode", "has_master", "groups", "several"),
    [
        ("portfolio", True, {"symbols", "master"}, True),
        ("portfolio", False, {"symbols"}, False),
        ("accounts", True, {"symbols"}, True),
        ("accounts", False, {"symbols"}, True),
    ],
)
def test_only_a_portfolio_without_a_master_has_a_single_directive(
    mode: Mode, has_master: bool, groups: set[str], several: bool
) -> None:
    market = replace(trading("net", "net")[0], has_master=has_master)
    environment = market.environment(mode, Span(20, 90), num_envs=2, episode=10, seed=0)
    assert set(environment.groups) == groups
    assert (environment.game.directives.shape[0] > 1) == several
    assert environment.span == Span(20, 90)
    assert environment.num_envs == 2
