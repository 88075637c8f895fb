"""MAPPO: what the central critic sees and costs, memory, separate networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from marl_pipeline.algos.common.actor_critic import ActorCriticSettings, GroupActorCritic, rekeyed
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.errors import UserError
from marl_pipeline.nn.first_layers import AgentStateLayer, StateLayer
from marl_pipeline.nn.linear import orthogonal
from tests.algos.learners import assert_same_bytes, learner, settings
from tests.algos.targets import Targets
from tests.learning import OverSeeds

PLAIN = ActorCriticSettings(
    hidden=(8, 8), activation="tanh", normalise_inputs=False, actor_gain=0.01, log_std=0.0, recurrence="none",
    share_parameters=True, agent_heads=False, layer_norm=False,
)  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


def test_the_agent_specific_state_is_one_linear_layer_on_all_of_it():
    first = AgentStateLayer(6, 5, 8, agents=3, normalise=False, sets=1, initial=orthogonal(), generator=generator())
    nn.init.normal_(first.identity, generator=generator(1))
    seen, state = rows(7, 3, 5), rows(7, 6, seed=1)
    found = first(seen, state, torch.ones(7, 3, dtype=torch.bool))
    weight = torch.cat([first.state.linear.weight[0, 0], first.rows.linear.weight[0, 0], first.identity.T], -1)
    identity = torch.eye(3).expand(7, 3, 3)
    whole = torch.cat([state.unsqueeze(1).expand(7, 3, 6), seen, identity], -1)
    torch.testing.assert_close(found, whole @ weight.T)


def test_separate_critics_of_the_state_are_theirs_side_by_side():
    first = StateLayer(6, 8, normalise=False, sets=3, initial=orthogonal(), generator=generator())
    state, linear = rows(7, 6), first.linear
    for agent in range(3):
        expected = nn.functional.linear(state, linear.weight[0, agent], linear.bias[0, agent])
        torch.testing.assert_close(first(state)[:, agent], expected)


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


@pytest.mark.parametrize("share", [True, False])
def test_a_gaussian_actor_has_a_mean_and_a_deviation_for_every_number(share):
    of = group("local", share_parameters=share, log_std=-0.7)
    seen = {"observation.shown": rows(4, 2, 2), "present": torch.ones(4, 2, dtype=torch.bool)}
    parameters, _ = of.evaluate(seen)
    assert parameters.shape == (4, 2, 4)
    assert bool((parameters[..., 2:] == -0.7).all())
    assert len(set(parameters[..., :2].flatten().tolist())) == 16


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
    learned.iterate()
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
    learned = learner(Targets(16, 0), settings("mappo", {"recurrence": "gru"}))
    kept = learned._collector.collect(12)["choosers"]
    started = torch.cat([torch.ones(1, 16, dtype=torch.bool), kept.done[:-1]])
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


@pytest.mark.parametrize(("recurrence", "chunk"), [("none", 1), ("gru", 6)])
def test_only_with_memory_is_a_colour_remembered(recurrence, chunk, over_seeds: OverSeeds):
    network = {"normalise_inputs": False, "recurrence": recurrence}
    chosen = settings("mappo", network, chunk=chunk, reward="agent", gamma=0.5)

    def reward(seed: int) -> float:
        learned = learner(Targets(32, seed, recall=True), chosen, seed=seed, timesteps=15 * 12 * 32)
        for _ in range(15):
            metrics = learned.iterate().metrics
        return metrics["choosers/reward_per_step"]

    guessing = (1 + 4 / 3) / 5
    if recurrence == "gru":
        over_seeds(reward, at_least=0.95)
    else:
        over_seeds(reward, at_most=guessing + 0.1)


@pytest.mark.parametrize("critic", ["state", "agent_state"])
def test_the_cost_of_an_update_grows_no_faster_than_the_agents(critic):
    def cost(agents):
        learned = learner(Targets(4, 0, agents=agents), settings("mappo", critic=critic, epochs=1, horizon=6))
        experience = learned._collector.collect(6)["choosers"]
        with FlopCounterMode(display=False) as counter:
            learned.learners["choosers"].update(experience, generator())
        return counter.get_total_flops()

    assert cost(143) < cost(3) * 143 / 3


@pytest.mark.parametrize("view", ["local", "state", "agent_state"])
def test_agent_heads_start_as_the_shared_one_and_correct_it_by_agent(view):
    shared, of = group(view), group(view, agent_heads=True)
    seen = {"observation.shown": rows(4, 2, 2), "state": rows(4, 7), "present": torch.ones(4, 2, dtype=torch.bool)}
    for found, wanted in zip(of.evaluate(seen), shared.evaluate(seen), strict=True):
        torch.testing.assert_close(found, wanted)
    actor = of.actor
    with torch.no_grad():
        actor.output.correction.copy_(rows(*actor.output.correction.shape, seed=3))
        hidden, _ = actor.trunk(actor.first(seen["observation.shown"]), None)
    corrected, _ = of.evaluate(seen)
    for agent in range(2):
        wanted = actor.output.shared(hidden[:, agent]) + hidden[:, agent] @ actor.output.correction[agent]
        torch.testing.assert_close(corrected[:, agent, : wanted.shape[-1]], wanted)


def test_corrections_follow_their_agent_and_newcomers_start_at_the_shared_head():
    of = group("agent_state", agent_heads=True)
    weights = of.module.state_dict()
    own = {name for name, value in weights.items() if name.endswith((".correction", ".identity"))}
    assert own == {"actor.output.correction", "critic.output.correction", "critic.first.identity"}
    for index, name in enumerate(sorted(own)):
        weights[name] = rows(*weights[name].shape, seed=index)
    found = rekeyed(weights, ["A", "B"], ["NEW", "B", "A"])
    for name, value in weights.items():
        if name not in own:
            assert torch.equal(found[name], value)
            continue
        assert torch.equal(found[name], torch.stack([torch.zeros_like(value[0]), value[1], value[0]]))


def test_heads_of_agents_need_something_shared_to_correct():
    with pytest.raises(ValueError, match="agent_heads correct a shared network"):
        ActorCriticSettings.model_validate(PLAIN.model_dump() | {"agent_heads": True, "share_parameters": False})
