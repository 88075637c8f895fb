"""What a team goes on to earn after one of it has left belongs to the decisions that one took before."""

from __future__ import annotations

import pytest
import torch

from marl_pipeline.agents import registry
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.algos.common.replay import Replay
from marl_pipeline.algos.on_policy import OnPolicy
from marl_pipeline.envs.conformance import check_environment
from marl_pipeline.evaluation.greedy import greedy_returns
from tests.algos.leaving import EPISODE, Leaving
from tests.algos.off_policy_runs import constant
from tests.learning import OverSeeds

STAY, LEAVE = 0, 1


def test_the_game_keeps_the_protocol() -> None:
    check_environment(lambda: Leaving(3), steps=30)


def played(leaves_at: int) -> Replay:
    """One episode and the first row of the next."""
    environment = Leaving(1)
    step = environment.reset()
    replay = Replay(environment, step, buffer_size=50)
    for t in range(EPISODE):
        actions = {"pair": torch.tensor([[STAY, LEAVE if t == leaves_at else STAY]])}
        after = environment.step(actions)
        replay.add(actions, after, environment.reset(after.done) if bool(after.done.any()) else after, {})
    return replay


def test_a_team_earns_on_after_a_decision_to_leave() -> None:
    replay = played(leaves_at=3)
    position = torch.tensor([3, 4, 9])
    of_team = replay.decisions("pair", position, n=1, look_ahead=1, gamma=0.9, team=True)
    assert of_team.returns.tolist() == [[1.0, 1.0]] * 3
    assert of_team.factor.tolist() == [[pytest.approx(0.9)] * 2] * 2 + [[0.0, 0.0]]
    assert bool(of_team.valid.all())
    own = replay.decisions("pair", position, n=1, look_ahead=1, gamma=0.9)
    assert own.valid.tolist() == [[True, True], [True, False], [True, False]]
    assert own.factor[0].tolist() == [pytest.approx(0.9), 0.0]


@pytest.mark.parametrize(("name", "critic"), [("mappo", "state"), ("mappo", "agent_state"), ("ippo", None)])
def test_the_value_of_who_has_left_is_learned(name: str, critic: str | None, over_seeds: OverSeeds) -> None:
    """Rollouts end in the midst of episodes, so that decisions to leave are judged by it: it must not run away."""
    changes = {
        **({"critic": critic} if critic else {}),
        "reward": "team",
        "horizon": 5,
        "epochs": 4,
        "minibatches": 1,
        "gamma": 0.99,
        "learning_rate": constant(0.003),
        "network": {"normalise_inputs": False},
    }

    def figures(seed: int) -> dict[str, float]:
        environment = Leaving(16)
        settings = registry.choose(name, changes).settings
        inputs = DenseInputs(environment.groups)
        learner = registry.build(name, environment, inputs, settings, seed=seed, timesteps=16 * 5 * 200)
        assert isinstance(learner, OnPolicy)
        for _ in range(200):
            learner.iterate()
        group = learner.groups["pair"]
        assert group.norm is not None
        clock, state = torch.tensor([[[1.0, 0.5], [1.0, 0.5]]]), torch.tensor([[0.5, 1.0]])
        value, _ = group.critic(clock, state, torch.tensor([[True, False]]), None)
        at_half_time, *_ = group.norm.denormalise(value)
        right = sum(0.99**k for k in range(5))
        return {
            "return": float(greedy_returns(Leaving(2), learner.policy).mean()),
            "error of the value": float((at_half_time - right).abs().max()),
        }

    over_seeds(figures, at_least={"return": EPISODE}, at_most={"error of the value": 1.5})
