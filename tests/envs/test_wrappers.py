"""One agent in the place of a group sees, may do and earns what the group does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from marl_pipeline.envs.conformance import check_environment
from marl_pipeline.envs.matrix.games import two_step
from marl_pipeline.envs.particle.spread import SimpleSpread
from marl_pipeline.envs.protocol import Continuous, MultiDiscrete, Timestep
from marl_pipeline.envs.wrappers import JoinedAgents
from marl_pipeline.errors import UserError
from tests.envs.bridges.exports.test_adapters import make_trading


@pytest.mark.parametrize("continuous", [False, True])
def test_the_joined_view_holds_to_the_protocol(continuous: bool) -> None:
    check_environment(lambda: JoinedAgents(SimpleSpread(4, seed=3, continuous=continuous)), steps=60)


def test_actions_observations_and_masks_are_side_by_side() -> None:
    spread, joined = SimpleSpread(4, seed=3), JoinedAgents(SimpleSpread(4, seed=3))
    spec = joined.groups["agent"]
    assert (spec.agents, spec.actions) == (1, MultiDiscrete((5, 5, 5)))
    assert spec.observation == {"seen": (3, 18), "state": (54,)}
    assert JoinedAgents(SimpleSpread(4, seed=3, continuous=True)).groups["agent"].actions == Continuous(15, 0.0, 1.0)
    spread.reset()
    joined.reset()
    actions = torch.randint(5, (4, 3), generator=torch.Generator().manual_seed(0))
    apart, together = spread.step({"agents": actions}), joined.step({"agent": actions.unsqueeze(1)})
    assert torch.equal(together.groups["agent"].observation["seen"][:, 0], apart.groups["agents"].observation["seen"])
    assert torch.equal(together.groups["agent"].observation["state"][:, 0], apart.state)
    assert torch.equal(together.groups["agent"].reward[:, 0], apart.team_reward)
    assert torch.equal(together.team_reward, apart.team_reward)


class HalfIdle(SimpleSpread):
    """The second agent waits, and the third may only choose 2 or 4."""

    def _timestep(self, reward: torch.Tensor, info: Mapping[str, torch.Tensor]) -> Timestep:
        timestep = super()._timestep(reward, info)
        step = timestep.groups["agents"]
        mask, acts = step.action_mask.clone(), step.acts.clone()
        mask[:, 2, [0, 1, 3]], acts[:, 1] = False, False
        return replace(timestep, groups={"agents": replace(step, action_mask=mask, acts=acts)})


def test_who_waits_has_one_choice_and_masks_bind() -> None:
    mask = JoinedAgents(HalfIdle(2, seed=0)).reset().groups["agent"].action_mask
    wanted = [[True] * 5, [True, False, False, False, False], [False, False, True, False, True]]
    assert mask.shape == (2, 1, 15)
    assert mask[0, 0].view(3, 5).tolist() == wanted


def test_an_episode_that_ends_has_no_future() -> None:
    joined = JoinedAgents(two_step(1, seed=0))
    joined.reset()
    both = {"agent": torch.tensor([[[1, 1]]])}
    assert joined.step(both).groups["agent"].discount.item() == 1.0
    last = joined.step(both)
    assert (last.groups["agent"].reward.item(), last.groups["agent"].discount.item()) == (8.0, 0.0)


def test_several_groups_cannot_be_joined() -> None:
    environment = make_trading("portfolio")(0)
    assert len(environment.groups) == 2
    with pytest.raises(UserError, match="one agent can stand for one group, here are master, symbols"):
        JoinedAgents(environment)
