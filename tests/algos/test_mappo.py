"""MAPPO: what the central critic sees and costs, memory, separate networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from marl_pipeline.algos.common.actor_critic import AgentStateEntry, GroupActorCritic, NetworkSettings, StateEntry
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.errors import UserError
from marl_pipeline.nn.orthogonal import AgentNorm, OrthogonalGRU, OrthogonalLinear
from tests.algos.learners import assert_same_bytes, learner, settings
from tests.algos.targets import Targets

PLAIN = NetworkSettings(
    hidden=(8, 8), activation="tanh", normalise_inputs=False, actor_gain=0.01, log_std=0.0, memory="none",
    share_parameters=True,
)  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


@pytest.mark.parametrize("copies", [1, 3])
def test_the_layers_of_agents_are_theirs_side_by_side(copies):
    linear, norm = OrthogonalLinear(5, 4, copies, 1.0, generator()), AgentNorm(5, copies)
    for parameter in [*norm.parameters(), linear.bias]:
        nn.init.normal_(parameter, generator=generator(1))
    seen = rows(2, 6, 3, 5)
    for agent in range(3):
        own = agent if copies == 3 else 0
        normed = nn.functional.layer_norm(seen[:, :, agent], (5,), norm.weight[own], norm.bias[own])
        torch.testing.assert_close(norm(seen)[:, :, agent], normed)
        torch.testing.assert_close(
            linear(seen)[:, :, agent], nn.functional.linear(seen[:, :, agent], linear.weight[own], linear.bias[own])
        )


def test_the_gru_equals_torchs_and_forgets_at_starts_and_absences():
    ours, theirs = OrthogonalGRU(5, 4, 1, generator()), nn.GRUCell(5, 4)
    nn.init.normal_(ours.of_memory.bias, generator=generator(3))
    with torch.no_grad():
        theirs.weight_ih.copy_(ours.of_input.weight[0])
        theirs.weight_hh.copy_(ours.of_memory.weight[0])
        theirs.bias_ih.copy_(ours.of_input.bias[0])
        theirs.bias_hh.copy_(ours.of_memory.bias[0])
    seen, memory = rows(2, 6, 3, 5), rows(2, 3, 4, seed=1)
    fresh, present = torch.zeros(2, 6, dtype=torch.bool), torch.ones(2, 6, 3, dtype=torch.bool)
    fresh[1, 3] = True
    present[0, 2, 1] = False
    found = ours(seen, memory, fresh, present)
    for copy in range(2):
        for agent in range(3):
            kept = memory[copy, agent]
            for step in range(6):
                kept = theirs(seen[copy, step, agent], torch.zeros(4) if fresh[copy, step] else kept)
                kept = kept * present[copy, step, agent]
                torch.testing.assert_close(found[copy, step, agent], kept)


def test_the_agent_specific_state_is_one_linear_layer_on_all_of_it():
    entry = AgentStateEntry(6, 5, 3, PLAIN, 1, generator())
    nn.init.normal_(entry.identity, generator=generator(1))
    seen, state = rows(7, 3, 5), rows(7, 6, seed=1)
    found = entry(seen, state, torch.ones(7, 3, dtype=torch.bool))
    weight = torch.cat([entry.state.linear.weight[0], entry.rows.linear.weight[0], entry.identity.T], -1)
    identity = torch.eye(3).expand(7, 3, 3)
    whole = torch.cat([state.unsqueeze(1).expand(7, 3, 6), seen, identity], -1)
    torch.testing.assert_close(found, whole @ weight.T)


def test_separate_critics_of_the_state_are_theirs_side_by_side():
    entry, state = StateEntry(6, PLAIN, 3, generator()), rows(7, 6)
    for agent in range(3):
        linear = entry.linear
        expected = nn.functional.linear(state, linear.weight[agent], linear.bias[agent])
        torch.testing.assert_close(entry(state)[:, agent], expected)


def group(view, **network):
    spec = Targets(1, 0).groups["movers"]
    return GroupActorCritic(
        "movers", spec, DenseInputs({"movers": spec}), 7, view, PLAIN.model_copy(update=network),
        normalise_values=False, generator=generator(), device=torch.device("cpu"),
    )  # fmt: skip


def test_of_an_absent_agent_only_its_identity_is_seen():
    of = group("agent_state")
    present = torch.ones(4, 2, dtype=torch.bool)
    present[1, 0] = False
    seen = {"observation.shown": rows(4, 2, 2), "state": rows(4, 7), "present": present}
    changed = {**seen, "observation.shown": rows(4, 2, 2, seed=5), "state": rows(4, 7, seed=6)}
    (_, value), (_, other) = of.evaluate(seen), of.evaluate(changed)
    same = value == other
    assert bool(same[1, 0])
    assert int(same.sum()) == 1


def test_the_state_alone_gives_all_agents_one_value_and_the_actor_never_sees_it():
    of = group("state")
    present = torch.ones(4, 2, dtype=torch.bool)
    seen = {"observation.shown": rows(4, 2, 2), "state": rows(4, 7), "present": present}
    parameters, value = of.evaluate(seen)
    assert torch.equal(value[:, 0], value[:, 1])
    other_parameters, other_value = of.evaluate({**seen, "state": rows(4, 7, seed=6)})
    assert torch.equal(parameters, other_parameters)
    assert not bool((value == other_value).any())
    separate, values = of, group("state", share_parameters=False).evaluate(seen)[1]
    assert not bool((values[:, 0] == values[:, 1]).any())
    assert separate.critic.rows == 1


def test_a_central_critic_needs_a_state():
    spec = Targets(1, 0).groups["movers"]
    with pytest.raises(UserError, match="this environment has none"):
        GroupActorCritic(
            "movers", spec, DenseInputs({"movers": spec}), 0, "state", PLAIN,
            normalise_values=False, generator=generator(), device=torch.device("cpu"),
        )  # fmt: skip


@pytest.mark.parametrize(("reward", "taught"), [("agent", set()), ("team", {"value"})])
def test_absent_agents_teach_the_critic_of_a_team_and_nothing_else(reward, taught):
    learned = learner(Targets(16, 0), settings("mappo", critic="agent_state", reward=reward))
    learned.advance()
    of = learned.learners["movers"]
    experience = learned._collector.collect(12)["movers"]
    batch = of.batch(experience, advantage=experience.value, target=experience.value)
    absent = ~batch.acts
    assert bool(absent.any())
    losses = of.losses(batch)
    for noisy in (batch.action, batch.target, batch.advantage, batch.old_log_prob, batch.old_value):
        noisy[absent] = 0.77
    changed = of.losses(batch)
    assert {name for name in vars(losses) if not torch.equal(getattr(losses, name), getattr(changed, name))} == taught
    batch.action[batch.acts] = 0.5
    assert not torch.equal(losses.policy, of.losses(batch).policy)


def test_memory_starts_anew_with_an_episode_and_waits_while_it_is_only_asked():
    learned = learner(Targets(16, 0), settings("mappo", {"memory": "gru"}))
    kept = learned._collector.collect(12)["choosers"]
    started = torch.cat([torch.ones(1, 16, dtype=torch.bool), kept.cut[:-1]])
    assert torch.equal(kept.inputs["fresh"], started)
    for memory in (kept.inputs["actor_memory"], kept.inputs["critic_memory"]):
        assert not bool(memory[started].any())
        assert bool(memory[~started].any(-1).all())
    before = learned.state_dict()["actors"]
    learned._actors.decide(learned._collector._timestep, None)
    assert_same_bytes(learned.state_dict()["actors"], before)
    learned._actors.decide(learned._collector._timestep, generator())
    with pytest.raises(AssertionError):
        assert_same_bytes(learned.state_dict()["actors"], before)


@pytest.mark.parametrize(("memory", "chunk"), [("none", 1), ("gru", 6)])
def test_only_with_memory_is_a_colour_remembered(memory, chunk):
    network = {"normalise_inputs": False, "memory": memory}
    chosen = settings("mappo", network, chunk=chunk, reward="agent", gamma=0.5)
    learned = learner(Targets(32, 0, recall=True), chosen, timesteps=15 * 12 * 32)
    for _ in range(15):
        metrics = learned.advance().metrics
    reward = metrics["choosers/reward_per_step"]
    guessing = (1 + 4 / 3) / 5
    assert reward > 0.95 if memory == "gru" else reward < guessing + 0.1


@pytest.mark.parametrize("critic", ["state", "agent_state"])
def test_the_cost_of_an_update_grows_no_faster_than_the_agents(critic):
    def cost(agents):
        learned = learner(Targets(4, 0, agents=agents), settings("mappo", critic=critic, epochs=1, horizon=6))
        experience = learned._collector.collect(6)["choosers"]
        with FlopCounterMode(display=False) as counter:
            learned.learners["choosers"].update(experience, generator())
        return counter.get_total_flops()

    assert cost(143) < cost(3) * 143 / 3
