"""Groups with settings of their own: who learns, who is frozen, who tells whom what, and what a run may start from."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.algos.on_policy import OnPolicy
from marl_pipeline.envs.protocol import GroupSpec, discrete_actions
from marl_pipeline.errors import UserError
from marl_pipeline.nn.distributions import masked_log_softmax, sample
from tests.algos.learners import assert_same_bytes, settings
from tests.algos.toy import Colours


class Shout:
    """The workers show the boss how probable they find each of their choices, averaged over the two."""

    sender, receiver, field = "workers", "boss", "shouted"

    def width(self, sender: GroupSpec) -> int:
        return discrete_actions(sender)

    def __call__(self, parameters: Tensor, action_mask: Tensor) -> Tensor:
        return masked_log_softmax(parameters, action_mask).exp().mean(1)


def team(
    learn: Collection[str] | None = None, *, seed: int = 0, message: Any = None, timesteps: int = 4_000, **boss: Any
) -> OnPolicy:
    environment = Colours(16, seed)
    chosen = {"workers": settings("ppo", reward="agent"), "boss": settings("mappo", **{"reward": "agent", **boss})}
    inputs = DenseInputs(environment.groups)
    return OnPolicy(environment, inputs, chosen, seed=seed, timesteps=timesteps, learn=learn, message=message)


def test_a_frozen_group_keeps_its_weights_and_acts_by_its_mode() -> None:
    algorithm = team(["boss"])
    before = algorithm.weights()
    timestep = Colours(16, 1).reset()
    drawn = [algorithm._actors.decide(timestep, torch.Generator().manual_seed(seed)) for seed in range(8)]
    for decision in drawn[1:]:
        assert torch.equal(decision["workers"].action, drawn[0]["workers"].action)
    assert any(not torch.equal(decision["boss"].action, drawn[0]["boss"].action) for decision in drawn[1:])
    metrics = [algorithm.iterate().metrics for _ in range(3)][-1]
    after = algorithm.weights()
    assert_same_bytes(*({k: v for k, v in w.items() if k.startswith("workers.")} for w in (after, before)))
    assert any(not torch.equal(after[k], before[k]) for k in after if k.startswith("boss."))
    assert not any(name.startswith("workers/") for name in metrics)


def test_every_group_learns_at_its_own_rate() -> None:
    algorithm = team(learning_rate=0.004)
    metrics = algorithm.iterate().metrics
    assert metrics["workers/learning_rate"] == pytest.approx(0.03)
    assert metrics["boss/learning_rate"] == pytest.approx(0.004)
    for name, rate in (("workers", 0.03), ("boss", 0.004)):
        assert algorithm.learners[name].optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_a_message_reaches_its_receiver_in_rollouts_and_in_the_policy() -> None:
    algorithm = team(message=Shout())
    experience = algorithm._collector.collect(4)
    shouted = experience["boss"].inputs["observation.shouted"]
    assert shouted.shape == (4, 16, 1, 4)
    torch.testing.assert_close(shouted.sum(-1), torch.ones(4, 16, 1))
    assert "observation.shouted" not in experience["workers"].inputs
    actions, _ = algorithm.policy.act(Colours(16, 3).reset(), algorithm.policy.start(16), None)
    assert actions["boss"].shape == (16, 1)
    assert team().groups["boss"].actor.state_dict().keys() == algorithm.groups["boss"].actor.state_dict().keys()


def test_weights_of_one_run_start_another_of_some_groups_or_all() -> None:
    first, second = team(), team(seed=5)
    first.iterate()
    second.load_weights({k: v for k, v in first.weights().items() if k.startswith("boss.")})
    for name, tensor in second.weights().items():
        assert torch.equal(tensor, first.weights()[name]) == name.startswith("boss.") or tensor.unique().numel() == 1
    with pytest.raises(UserError, match="weights of group boss do not fit"):
        second.load_weights({"boss.actor.nothing": torch.zeros(1)})


def test_contradictions_are_refused() -> None:
    with pytest.raises(UserError, match="nobody learns"):
        team(["nobody"])
    with pytest.raises(UserError, match="paid alike"):
        team(reward="team")


def test_masked_actions_are_never_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(4096, 5, generator=generator) > 0.5
    mask[:, 2] |= ~mask.any(-1)
    drawn = sample(masked_log_softmax(torch.randn(4096, 5, generator=generator) * 5, mask), generator)
    assert mask.gather(-1, drawn.unsqueeze(-1)).all()


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0]).log_softmax(-1)
    drawn = sample(logits.expand(200_000, 3), torch.Generator().manual_seed(0))
    share = torch.bincount(drawn, minlength=3) / len(drawn)
    assert torch.allclose(share, logits.exp(), atol=5e-3)


def test_groups_that_learn_together_have_rollouts_of_the_longer_horizon():
    environment = Colours(8, 0)
    chosen = {"workers": settings("ppo", horizon=6), "boss": settings("ppo", horizon=10)}
    learned = OnPolicy(environment, DenseInputs(environment.groups), chosen, seed=0, timesteps=1000)
    assert learned.horizon == 10
    assert learned.iterate().steps == 80
    alone = OnPolicy(environment, DenseInputs(environment.groups), chosen, seed=0, timesteps=1000, learn=["workers"])
    assert alone.iterate().steps == 48
