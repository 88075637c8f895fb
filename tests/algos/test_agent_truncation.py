"""The truncation of a single agent is not its termination: its last observation still has a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_pipeline.agents import registry
from marl_pipeline.algos.common.gae import generalised_advantages
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.algos.common.replay import Replay
from marl_pipeline.algos.idqn import IDQN
from marl_pipeline.algos.maddpg import MADDPG
from marl_pipeline.algos.on_policy import OnPolicy
from marl_pipeline.envs.conformance import ProtocolError, check_environment
from marl_pipeline.envs.protocol import Discrete, GroupSpec, GroupStep, Timestep
from marl_pipeline.envs.wrappers import JoinedAgents, SharedReward
from tests.algos.off_policy_runs import constant
from tests.learning import OverSeeds

LEAVES, EPISODE = 2, 5


class Shift:
    """Two workers earn 1 at every step; the shift of the second is truncated after LEAVES steps, the first works on
    until the episode ends after EPISODE steps. Both observe the same constant, so that one value stands for every
    moment: a learner that takes a truncation for an end learns less than 1 / (1 - gamma)."""

    def __init__(self, num_envs: int, seed: int = 0, *, terminates: bool = False, acts_on: bool = False) -> None:
        del seed
        self.num_envs, self.device, self.state_size = num_envs, torch.device("cpu"), 1
        self.groups = {"pair": GroupSpec(2, {"clock": (2,)}, Discrete(2))}
        self._terminates, self._acts_on = terminates, acts_on
        self._step = torch.zeros(num_envs, dtype=torch.int64)

    def reset(self, where: Tensor | None = None) -> Timestep:
        where = torch.ones(self.num_envs, dtype=torch.bool) if where is None else where
        self._step = self._step.masked_fill(where, 0)
        return self._shown(torch.zeros(self.num_envs, 2))

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        there = torch.stack([torch.ones_like(self._step), (self._step < LEAVES).long()], -1)
        self._step = self._step + 1
        return self._shown(there.float())

    def _shown(self, reward: Tensor) -> Timestep:
        always = torch.ones_like(self._step, dtype=torch.bool)
        over, leaves, left = self._step >= EPISODE, self._step == LEAVES, self._step > LEAVES
        terminated = over & self._terminates
        future = torch.stack([~terminated, ~terminated & ~left], -1)
        seen = torch.stack([always.float(), self._step / EPISODE], -1).unsqueeze(1).expand(-1, 2, -1)
        pair = GroupStep(
            observation={"clock": seen.contiguous()},
            action_mask=torch.ones(self.num_envs, 2, 2, dtype=torch.bool),
            acts=torch.stack([always, ~left if self._acts_on else ~left & ~leaves], -1),
            present=torch.stack([always, ~left], -1),
            reward=reward,
            discount=future.float(),
            truncated=torch.stack([~always, leaves], -1),
        )
        state = (self._step / EPISODE).unsqueeze(-1)
        return Timestep({"pair": pair}, state, reward.sum(-1), terminated, over & ~terminated, {})

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._step = state["step"].clone()


@pytest.mark.parametrize("terminates", [False, True])
def test_a_truncated_agent_keeps_the_protocol(terminates: bool) -> None:
    check_environment(lambda: Shift(3, terminates=terminates), steps=30)


def test_one_that_acts_on_breaks_it() -> None:
    with pytest.raises(ProtocolError, match="after step 2, group 'pair': a truncated agent acts"):
        check_environment(lambda: Shift(3, acts_on=True), steps=30)


def test_advantages_end_with_the_agent_by_hand() -> None:
    """The first agent goes on; the second is truncated by step 1, where its last observation is worth 40."""
    both = lambda *rows: torch.tensor(rows).unsqueeze(1)  # noqa: E731  [L, 1, 2]
    found = generalised_advantages(
        reward=both((1.0, 1.0), (1.0, 1.0), (1.0, 0.0)),
        discount=both((1.0, 1.0), (1.0, 1.0), (1.0, 0.0)),
        acts=both((True, True), (True, True), (True, False)),
        value=both((10.0, 10.0), (20.0, 20.0), (30.0, 99.0)),
        done=both((False, False), (False, True), (False, False)),
        final_value=both((0.0, 0.0), (7.0, 40.0), (0.0, 0.0)),
        last_value=torch.tensor([[60.0, 99.0]]),
        gamma=0.5,
        gae_lambda=0.5,
    ).advantage[:, 0]
    # second: 1 + 0.5 x 40 - 20 = 1, then 1 + 0.5 x 20 - 10 + 0.25 x 1 = 1.25
    assert found[:, 1].tolist() == [1.25, 1.0, 0.0]
    # first: 1 + 30 - 30 = 1, then 1 + 15 - 20 + 0.25 = -3.75, then 1 + 10 - 10 - 0.25 x 3.75 = 0.0625
    assert found[:, 0].tolist() == [0.0625, -3.75, 1.0]


def played(environment: Shift, steps: int = 2 * EPISODE) -> Replay:
    first = environment.reset()
    replay = Replay(environment, first, buffer_size=50)
    for _ in range(steps):
        after = environment.step({"pair": torch.zeros(1, 2, dtype=torch.int64)})
        replay.add(
            {"pair": torch.zeros(1, 2, dtype=torch.int64)},
            after,
            environment.reset(after.done) if bool(after.done.any()) else after,
            {},
        )
    return replay


@pytest.mark.parametrize(("n", "look_ahead"), [(1, 1), (3, 3), (3, 4)])
def test_a_decision_looks_no_further_than_the_truncation(n: int, look_ahead: int) -> None:
    found = played(Shift(1)).decisions("pair", torch.tensor([0, 1, 2]), n=n, look_ahead=look_ahead, gamma=0.5)
    ahead = min(n, LEAVES)
    assert found.valid[:, 1].tolist() == [True, True, False]  # where it was truncated it decided nothing
    assert found.returns[:2, 1].tolist() == [1.0 + 0.5 * (ahead == 2), 1.0]
    assert found.factor[:2, 1].tolist() == [0.5**ahead, 0.5]
    clock = found.later.observation["clock"][:2, 1, 1]
    assert clock.tolist() == pytest.approx([ahead / EPISODE, LEAVES / EPISODE])
    assert found.factor[:2, 0].tolist() == [0.5**n] * 2


@pytest.mark.parametrize("n", [1, 3])
def test_joint_transitions_stop_where_an_agent_is_truncated(n: int) -> None:
    found = played(Shift(1)).transitions(torch.tensor([0, 1, 2]), n=n, gamma=0.5)
    ahead = [min(n, LEAVES), 1, n]
    clock = [(start + steps) / EPISODE for start, steps in zip((0, 1, 2), ahead, strict=True)]
    assert found.later.state[:, 0].tolist() == pytest.approx(clock)
    assert found.factor["pair"][:, 0].tolist() == [0.5**steps for steps in ahead]
    assert found.factor["pair"][:2, 1].tolist() == [0.5**steps for steps in ahead[:2]]
    assert found.team_factor.tolist() == [0.5**steps for steps in ahead]


GAMMA = 0.8
FOREVER = 1 / (1 - GAMMA)
"""What 1 at every step is worth to whoever does not see the end coming."""


def inputs(environment: Shift) -> DenseInputs:
    """Sees the constant alone."""
    return _First(environment.groups)


class _First(DenseInputs):
    def width(self, group: str) -> int:
        return 1

    def __call__(self, group: str, observation: Mapping[str, Tensor]) -> Tensor:
        return observation["clock"][..., :1]


def test_on_policy_values_are_those_of_one_who_goes_on(over_seeds: OverSeeds) -> None:
    changes = {
        "horizon": 10, "epochs": 4, "minibatches": 1, "gamma": GAMMA, "gae_lambda": 0.9, "reward": "agent",
        "learning_rate": constant(0.01), "network": {"normalise_inputs": False},
    }  # fmt: skip
    settings = registry.choose("ippo", changes).settings

    def relative_error(seed: int) -> float:
        environment = Shift(8)
        learner = registry.build("ippo", environment, inputs(environment), settings, seed=seed, timesteps=10_000)
        assert isinstance(learner, OnPolicy)
        for _ in range(80):
            learner.iterate()
        group = learner.groups["pair"]
        assert group.norm is not None
        value, _ = group.critic(torch.ones(1, 2, 1), None, torch.ones(1, 2, dtype=torch.bool), None)
        return float((group.norm.denormalise(value) / FOREVER - 1).abs().max())

    over_seeds(relative_error, at_most=0.1)


def test_action_values_are_those_of_one_who_goes_on(over_seeds: OverSeeds) -> None:
    changes = {
        "learning_starts": 40, "train_freq": 5, "gradient_steps": 20, "batch": 32, "gamma": GAMMA, "buffer_size": 200,
        "n_step": 1, "reward_scale": 1.0,
        "look_ahead": 1,
    }  # fmt: skip
    settings = registry.choose("dqn", changes).settings

    def relative_error(seed: int) -> float:
        environment = Shift(4)
        learner = registry.build("dqn", environment, inputs(environment), settings, seed=seed, timesteps=10_000)
        assert isinstance(learner, IDQN)
        figures: Mapping[str, float] = {}
        for _ in range(60):
            figures = learner.iterate().metrics
        return abs(figures["q_mean"] / FOREVER - 1)

    over_seeds(relative_error, at_most=0.1)


def test_central_critics_bootstrap_from_what_the_agent_last_saw() -> None:
    """The target of the second agent's last decision is its reward and gamma times the critics' value, not the reward
    alone, and nothing is learned at the moment of the truncation, from which it did not act."""
    environment = Shift(1)
    settings = registry.choose("maddpg", {"gamma": GAMMA, "batch": 8, "learning_starts": 8}).settings
    learner = registry.build("maddpg", environment, inputs(environment), settings, seed=0, timesteps=1000)
    assert isinstance(learner, MADDPG)
    replay = played(Shift(1))
    batch = replay.transitions(torch.tensor([LEAVES - 1, LEAVES]), n=1, gamma=GAMMA)
    assert batch.factor["pair"][0].tolist() == [pytest.approx(GAMMA)] * 2
    later = learner._view(batch.later)
    assert later.truncated["pair"].tolist() == [[False, True], [False, False]]
    noise = learner._noise(later, 0.0, choices=False)
    waits = {"pair": torch.tensor([[[0.0, 1.0]] * 2] * 2)}
    mine = learner.targets(later, waits, batch.returns, batch.factor, noise)
    other = learner.targets(later, {"pair": 1 - waits["pair"]}, batch.returns, batch.factor, noise)
    assert torch.equal(mine["pair"][0], other["pair"][0])  # the actor decides, not what was done before


def test_a_team_earns_on_after_a_truncation() -> None:
    for view in (SharedReward(Shift(1)), JoinedAgents(Shift(1))):
        view.reset()
        for _ in range(LEAVES):
            (name,) = view.groups
            spec = view.groups[name]
            step = view.step({name: torch.zeros(1, spec.agents, *spec.actions.shape, dtype=torch.int64)})
        assert not bool(step.groups[name].agents_truncated().any())
        assert bool((step.groups[name].discount == 1.0).all())
