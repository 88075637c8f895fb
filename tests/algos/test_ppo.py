"""PPO with local critics on every kind of action space: it learns, it is deterministic, it resumes byte for byte."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from marl_pipeline.checkpoint import FileCheckpointer
from marl_pipeline.evaluation.greedy import greedy_returns
from tests.algos.learners import assert_same_bytes, learner, leaves, settings
from tests.algos.targets import EPISODE, Targets
from tests.algos.toy import Colours
from tests.learning import OverSeeds

VARIANTS = {
    "ppo": settings("ppo"),
    "ppo, own networks, minibatches": settings("ppo", {"share_parameters": False}, minibatches=3, target_kl=0.02),
    "mappo": settings("mappo"),
    "mappo, own networks": settings("mappo", {"share_parameters": False}, critic="state"),
    "mappo, gru": settings("mappo", {"recurrence": "gru"}, chunk=4),
    "mappo, gru, minibatches": settings("mappo", {"recurrence": "gru"}, chunk=3, minibatches=2, critic="state"),
}


@pytest.mark.parametrize("algorithm", ["ppo", "ippo", "mappo"])
def test_every_kind_of_action_is_learned(algorithm, over_seeds: OverSeeds):
    network = {"normalise_inputs": False, "share_parameters": algorithm != "ippo"}
    best = EPISODE * 3.0  # the movers alone lose 3.3 by standing in the middle

    def missing(seed: int) -> dict[str, float]:
        learned = learner(Targets(32, seed), settings(algorithm, network), seed=seed, timesteps=20 * 12 * 32)
        before = float(greedy_returns(Targets(256, 99), learned.policy).mean())
        for _ in range(20):
            learned.iterate()
        return {
            "untrained": best - before,
            "trained": best - float(greedy_returns(Targets(256, 99), learned.policy).mean()),
        }

    over_seeds(missing, at_least={"untrained": 5.0}, at_most={"trained": 0.5})


def test_masks_and_clocks_are_obeyed(over_seeds: OverSeeds):
    def share_of_the_best(seed: int) -> float:
        learned = learner(Colours(32, seed), settings("ppo"), seed=seed)
        for _ in range(20):
            learned.iterate()
        return float(greedy_returns(Colours(64, 99), learned.policy).mean()) / (8 * 3)

    over_seeds(share_of_the_best, at_least=0.95)


@pytest.mark.parametrize("name", VARIANTS)
def test_same_seed_same_bytes_and_another_seed_others(name):
    def weights(seed):
        learned = learner(Targets(16, seed), VARIANTS[name], seed=seed)
        for _ in range(2):
            learned.iterate()
        return learned.state_dict()

    first = weights(0)
    assert_same_bytes(weights(0), first)
    with pytest.raises(AssertionError):
        assert_same_bytes(weights(1)["learners"], first["learners"])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, name):
    undisturbed = learner(Targets(16, 0), VARIANTS[name])
    for iteration in range(4):
        if iteration == 2:
            FileCheckpointer(tmp_path).save(undisturbed.state_dict())
        undisturbed.iterate()
    resumed = learner(Targets(16, 5), VARIANTS[name], seed=5)  # whatever it starts from is overwritten
    resumed.load_state_dict(FileCheckpointer(tmp_path).load())
    for _ in range(2):
        resumed.iterate()
    assert_same_bytes(resumed.state_dict(), undisturbed.state_dict())


@pytest.mark.parametrize("name", VARIANTS)
def test_training_changes_every_weight(name):
    learned = learner(Targets(16, 0), VARIANTS[name])
    groups = {group: of.policy.module for group, of in learned.learners.items()}
    before = {(g, n): p.detach().clone() for g, module in groups.items() for n, p in module.named_parameters()}
    for _ in range(2):
        learned.iterate()
    for group, module in groups.items():
        for parameter, weight in module.named_parameters():
            assert not torch.equal(weight, before[group, parameter]), (group, parameter)


@pytest.mark.parametrize("name", VARIANTS)
def test_an_evaluated_rollout_says_what_was_collected(name):
    """Before the first step of an update every probability ratio is one, also through resets, deaths and chunks."""
    learned = learner(Targets(16, 0), VARIANTS[name])
    learned.iterate()
    experience = learned._collector.collect(VARIANTS[name].horizon)
    assert bool(experience["movers"].done.any())
    assert not bool(experience["movers"].acts.all())
    for group, of in learned.learners.items():
        kept = experience[group]
        batch = of.batch(kept, advantage=kept.value, target=kept.value)
        parameters, value = of.policy.evaluate(batch.inputs)
        policy = of.policy.distribution(parameters, batch.mask)
        torch.testing.assert_close(policy.log_prob(batch.action)[batch.acts], batch.old_log_prob[batch.acts])
        torch.testing.assert_close(value, batch.old_value)
        assert batch.acts.sum() == kept.acts.sum()


def test_the_learning_rate_follows_its_schedule():
    linear = {"kind": "linear", "start": 0.1, "end": 0.0, "share": 1.0}
    learned = learner(Targets(16, 0), settings("ppo", learning_rate=linear), timesteps=4 * 16 * 12)
    rates = [learned.iterate().metrics["choosers/learning_rate"] for _ in range(5)]
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.0])
    before = {name: tensor.clone() for name, tensor in learned.policy.module.state_dict().items()}
    learned.iterate()  # at a rate of 0
    assert_same_bytes(learned.policy.module.state_dict(), before)


def test_an_update_stops_when_the_policy_has_moved_far_enough(over_seeds: OverSeeds):
    def ratio(seed: int) -> float:
        rate = {"kind": "constant", "start": 0.1, "end": 0.1, "share": 1.0}
        stopped, free = (
            learner(Targets(16, seed), settings("ppo", learning_rate=rate, target_kl=target), seed=seed).iterate()
            for target in (1e-3, None)
        )
        return stopped.metrics["choosers/kl"] / free.metrics["choosers/kl"]

    over_seeds(ratio, at_most=0.5)


def test_the_team_reward_is_paid_to_all_alike():
    learned = learner(Targets(16, 0), settings("ppo", reward="team"))
    experience = learned._collector.collect(12)
    reward = torch.cat([experience[group].reward for group in experience], -1)
    assert torch.equal(reward, reward[..., :1].expand_as(reward))
    discount = experience["movers"].discount
    assert torch.equal(discount[..., 0], discount[..., 1])
    assert not bool(discount[experience["movers"].done][..., 0].all())  # terminations have no future
    own = learner(Targets(16, 0), settings("ppo", reward="agent"))._collector.collect(12)
    torch.testing.assert_close(reward[..., 0], sum(own[group].reward.sum(-1) for group in own))


def test_sequences_need_memory_and_divide_the_horizon():
    with pytest.raises(ValidationError, match="without recurrence"):
        settings("ppo", chunk=4)
    with pytest.raises(ValidationError, match="does not divide"):
        settings("ppo", {"recurrence": "gru"}, chunk=5)


def test_bfloat16_changes_the_numbers_and_learns_all_the_same(over_seeds: OverSeeds):
    def earned(seed: int) -> float:
        exact = learner(Targets(16, seed), settings("ppo"), seed=seed)
        rounded = settings("ppo", acceleration={"precision": "bfloat16", "compile": False})
        rough = learner(Targets(16, seed), rounded, seed=seed)
        for _ in range(12):
            exact.iterate()
            metrics = rough.iterate().metrics
        pairs = zip(leaves(exact.policy.module.state_dict()), leaves(rough.policy.module.state_dict()), strict=True)
        assert any(not torch.equal(ours[1], theirs[1]) for ours, theirs in pairs)
        return metrics["choosers/reward_per_step"]

    over_seeds(earned, at_least=0.9)
