"""Returns of whole episodes."""

from __future__ import annotations

import pytest

from marl_pipeline.agents import registry
from marl_pipeline.algos.common import episodes
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.errors import UserError
from marl_pipeline.evaluation.greedy import greedy_returns
from tests.algos.leaving import EPISODE, Leaving


def test_an_episode_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = Leaving(2)
    settings = registry.choose("ippo", {}).settings
    policy = registry.build("ippo", environment, DenseInputs(environment.groups), settings, seed=0, timesteps=10).policy
    monkeypatch.setattr(episodes, "LONGEST_EPISODE", EPISODE)
    assert float(greedy_returns(Leaving(2), policy).min()) >= EPISODE / 2
    monkeypatch.setattr(episodes, "LONGEST_EPISODE", EPISODE - 1)
    with pytest.raises(UserError, match="goes on after 9 steps"):
        greedy_returns(Leaving(2), policy)
