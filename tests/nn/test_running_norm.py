"""Running input statistics are those of all rows seen, and stand still while a rollout is learned from."""

from __future__ import annotations

import pytest
import torch

from marl_pipeline.nn.reduction import Reduction
from marl_pipeline.nn.running_norm import BOUND, RunningNorm
from tests.algos.learners import learner, settings
from tests.algos.targets import Targets


def rows(count, seed=0):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)) * torch.tensor([1.0, 1e-3, 50.0]) + 1e4


def test_the_statistics_are_those_of_all_rows_whatever_the_pieces():
    whole, norm = rows(1000), RunningNorm(3)
    for part in (whole[:0], whole[:1], whole[1:300], whole[300:300], whole[300:]):
        norm.observe(part)
        norm.observe(part[:0])
        norm.absorb()
    wide = whole.double()
    assert float(norm.count) == 1000
    torch.testing.assert_close(norm.mean, wide.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(norm.variance, wide.var(0, correction=0), rtol=1e-9, atol=0)
    normalised = norm(whole)
    torch.testing.assert_close(normalised[:, 0].mean(), torch.tensor(0.0), atol=1e-2, rtol=0)
    torch.testing.assert_close(normalised.std(0)[[0, 2]], torch.ones(2), atol=1e-2, rtol=0)


def test_before_any_rows_and_with_a_constant_column_numbers_stay_bounded():
    norm = RunningNorm(2)
    assert torch.equal(norm(torch.tensor([[0.5, -3.0]])), torch.tensor([[0.5, -3.0]]))
    norm.observe(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    norm.absorb()
    assert norm(torch.tensor([[3.0, 7.0]])).tolist() == [[pytest.approx(1.0), 0.0]]
    assert norm(torch.tensor([[2.0, 8.0]])).tolist() == [[0.0, BOUND]]


def test_observing_alone_moves_nothing():
    norm = RunningNorm(3)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    norm.observe(rows(50))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    norm.absorb()
    assert not any(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    with pytest.raises(ValueError, match="nothing was observed"):
        norm.absorb()


class PairedWorkers(Reduction):
    """One worker of two, given what the other would bring."""

    workers = 2

    def __init__(self, others):
        self._others = iter(others)
        self.brought = []

    def sum(self, values):
        self.brought.append(values)
        return values + next(self._others, torch.zeros_like(values))


def test_paired_workers_end_with_the_statistics_of_all_rows():
    mine, theirs, alone = rows(40), rows(17, seed=1), RunningNorm(3)
    alone.observe(torch.cat([mine, theirs]))
    alone.absorb()
    norms, brought = [RunningNorm(3), RunningNorm(3)], [[], []]
    for _ in range(3):  # the second sum depends on the first: until both workers bring what they would
        workers = [PairedWorkers(brought[1]), PairedWorkers(brought[0])]
        norms = [RunningNorm(3), RunningNorm(3)]
        for norm, part, worker in zip(norms, (mine, theirs), workers, strict=True):
            norm.observe(part)
            norm.absorb(worker)
        brought = [worker.brought for worker in workers]
    for norm in norms:
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(value, alone.state_dict()[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize(("algorithm", "critic"), [("ippo", {}), ("mappo", {"critic": "agent_state"})])
def test_a_rollout_is_learned_from_with_the_statistics_it_was_collected_with(algorithm, critic):
    """Every probability ratio starts at exactly 1, and an update leaves statistics of all rows seen so far."""
    learned = learner(Targets(16, 0), settings(algorithm, {"normalise_inputs": True}, reward="agent", **critic))
    for iteration in range(3):
        experience = learned._collector.collect(12)
        for name, of in learned.learners.items():
            batch = of.batch(experience[name], experience[name].value, experience[name].value)
            losses = of.losses(batch)
            assert float(losses.clipped) == 0.0
            assert float(losses.kl.detach()) == pytest.approx(0.0, abs=1e-6)
        learned.iterate()
        group = learned.groups["movers"]
        for norm in (*group.actor.norms(), *group.critic.norms()):
            assert 0 < float(norm.count) <= 16 * 12 * 2 * (iteration + 1)


def test_evaluation_changes_no_statistics_and_a_saved_policy_carries_them():
    learned = learner(Targets(16, 0), settings("ippo", {"normalise_inputs": True}))
    learned.iterate()
    saved = {name: value.clone() for name, value in learned.policy.module.state_dict().items()}
    assert any(name.endswith("norm.mean") for name in saved)
    environment = Targets(16, 1)
    timestep = environment.reset()
    for _ in range(3):
        actions, _ = learned.policy.act(timestep, learned.policy.start(16), None)
        timestep = environment.step(actions)
    assert all(torch.equal(value, saved[name]) for name, value in learned.policy.module.state_dict().items())
