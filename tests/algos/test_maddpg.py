"""MADDPG: its values and targets against plain loops, whose gradient goes where, masks, learning, resuming."""

from __future__ import annotations

import pytest
import torch
from ruamel.yaml import YAML

from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.algos.maddpg import MADDPG, MADDPGSettings, View
from marl_pipeline.envs.particle.spread import SimpleSpread
from marl_pipeline.errors import UserError
from marl_pipeline.evaluation.greedy import greedy_returns
from tests.algos.echo import Echo
from tests.algos.off_policy_runs import PRESETS, bytes_of, check_kill_and_resume, iterate, preset
from tests.learning import OverSeeds

PRESET = YAML(typ="safe").load(PRESETS / "maddpg.yaml")
NETWORK = {"hidden": [32], "activation": "relu", "recurrence": "none", "share_parameters": True}
SEPARATE = NETWORK | {"share_parameters": False}
SIZES = {"speakers": 2, "driver": 1}


def constant(value):
    return {"kind": "constant", "start": value, "end": value, "share": 1.0}


def settings(**overrides):
    optimizer = {"kind": "adam", "learning_rate": constant(0.01), "epsilon": 1e-8, "max_grad_norm": 10.0}
    small = {
        "network": NETWORK, "actor_optimizer": optimizer, "critic_optimizer": optimizer, "batch": 64,
        "gradient_steps": 1, "buffer_size": 4000,
        "learning_starts": 128, "gamma": 0.5, "target": {"rate": 0.05}, "temperature": 1.0,
    }  # fmt: skip
    return preset(MADDPGSettings, "maddpg", small | overrides)


def learner(seed=0, envs=16, timesteps=10_000, **overrides):
    env = Echo(envs, seed)
    return MADDPG(env, DenseInputs(env.groups), settings(**overrides), seed=seed, timesteps=timesteps)


def test_presets_are_complete():
    for overrides in ({}, *PRESET.get("environments", {}).values()):
        MADDPGSettings.model_validate(PRESET["default"] | {k: v for k, v in overrides.items() if k != "envs"})


def random_view(rows: int, generator: torch.Generator) -> View:
    def flags(*shape):
        return torch.rand(shape, generator=generator) < 0.7

    seen = {
        "speakers": torch.randn(rows, 2, 5, generator=generator),
        "driver": torch.randn(rows, 1, 3, generator=generator),
    }
    mask = flags(rows, 2, 6)
    mask[..., [0, 4]] = True
    return View(
        rows=seen,
        joint=torch.cat([row.flatten(1) for row in seen.values()], -1),
        mask={"speakers": mask, "driver": flags(rows, 1, 0)},
        acts={"speakers": flags(rows, 2), "driver": flags(rows, 1)},
        present={"speakers": flags(rows, 2), "driver": flags(rows, 1)},
        truncated={"speakers": flags(rows, 2) & flags(rows, 2), "driver": flags(rows, 1)},
    )


def random_batch(agent: MADDPG, rows: int = 12, seed: int = 0):
    """A view, a later one, active codes, returns and factors, all at random."""
    generator = torch.Generator().manual_seed(seed)
    now, later = random_view(rows, generator), random_view(rows, generator)
    codes = agent.policy.codes
    uttered = torch.stack([torch.randint(0, n, (rows, 2), generator=generator) for n in (4, 2)], -1)
    active = {
        "speakers": codes["speakers"].encode(uttered),
        "driver": torch.rand(rows, 1, 2, generator=generator) * 2 - 1,
    }
    returns = {name: torch.randn(rows, a, generator=generator) for name, a in (("speakers", 2), ("driver", 1))}
    factor = {
        name: torch.rand(rows, a, generator=generator).round() * 0.5 for name, a in (("speakers", 2), ("driver", 1))
    }
    noise = {
        name: codes[name].noise(torch.Size((rows, agents, codes[name].width)), generator, torch.device("cpu"))
        for name, agents in SIZES.items()
    }
    return now, later, active, returns, factor, noise


def plain(network, replica, agent, row):
    """One agent's network on one row, layer by layer."""
    for layer in (network.first, *network.hidden.layers, network.output):
        weight, bias = layer.weight[replica], layer.bias[replica]
        row = weight[agent if len(weight) > 1 else 0] @ row + bias[agent if len(bias) > 1 else 0]
        if layer is not network.output:
            row = row.clamp(min=0)
    return row


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("critics", [1, 2])
@torch.no_grad()
def test_targets_are_those_of_a_plain_loop(share, critics):
    agent = learner(network=NETWORK | {"share_parameters": share}, critics=critics, reward_scale=0.3)
    for parameter in (*agent.target_actors.parameters(), *agent.target_critics.parameters()):
        parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    _, later, active, returns, factor, noise = random_batch(agent)
    found = agent.targets(later, active, returns, factor, noise)
    for b in range(12):
        actions = []
        for name, agents in SIZES.items():
            for i in range(agents):
                raw = plain(agent.target_actors[name], 0, i, later.rows[name][b, i])
                if name == "driver":
                    code = (raw.tanh() + noise[name][b, i]).clamp(-1, 1)
                else:
                    drawn = (raw + noise[name][b, i]).masked_fill(~later.mask[name][b, i], -torch.inf)
                    code = torch.zeros(6)
                    code[drawn[:4].argmax()] = 1.0
                    code[4 + drawn[4:].argmax()] = 1.0
                code = code if later.acts[name][b, i] or later.truncated[name][b, i] else active[name][b, i]
                actions.append(code * later.present[name][b, i])
        row = torch.cat([later.joint[b], *actions])
        for name, agents in SIZES.items():
            for i in range(agents):
                value = min(float(plain(agent.target_critics[name], k, i, row)) for k in range(critics))
                wanted = 0.3 * float(returns[name][b, i]) + float(factor[name][b, i]) * value
                assert float(found[name][b, i]) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("share", [True, False])
@torch.no_grad()
def test_a_deviation_is_the_joint_row_with_one_action_replaced(share):
    agent = learner(network=NETWORK | {"share_parameters": share}, critics=2)
    now, _, active, *_ = random_batch(agent)
    row = torch.cat([now.joint, *[code.flatten(1) for code in active.values()]], -1)
    other = torch.randn(12, 2, 6)
    found = agent.critics["speakers"].deviating(row, other - active["speakers"])
    for i in range(2):
        replaced = row.clone()
        start = now.joint.shape[1] + 6 * i
        replaced[:, start : start + 6] = other[:, i]
        assert torch.allclose(found[:, :, i], agent.critics["speakers"](replaced)[:, :, i], atol=1e-5)


def test_an_actor_s_gradient_goes_through_its_own_action_only():
    agent = learner(network=SEPARATE, raw_penalty=0.0)
    now, _, active, _, _, noise = random_batch(agent)
    nobody = {"speakers": torch.zeros(12, 2, dtype=torch.bool), "driver": torch.zeros(12, 1, dtype=torch.bool)}
    only = {**nobody, "speakers": torch.tensor([True, False]).expand(12, 2)}
    agent.actor_loss(now, active, only, noise).backward()
    for weight in agent.policy.module["speakers"].parameters():
        assert bool(weight.grad[0, 0].any())
        assert not bool(weight.grad[0, 1].any())
    assert all(not bool(weight.grad.any()) for weight in agent.policy.module["driver"].parameters())


def test_an_actor_s_gradient_is_that_of_its_value():
    """By the chain rule with the critic alone: dQ/da at the deviating action, times da/draw of tanh."""
    agent = learner(raw_penalty=0.0)
    now, _, active, _, _, noise = random_batch(agent)
    noise["driver"].zero_()
    now.present["driver"].fill_(True)
    decided = {"speakers": torch.zeros(12, 2, dtype=torch.bool), "driver": torch.ones(12, 1, dtype=torch.bool)}
    bias = agent.policy.module["driver"].output.bias
    agent.actor_loss(now, active, decided, noise).backward()
    action = agent.policy.raw("driver", now.rows["driver"]).detach().tanh().requires_grad_()
    uttered = active["speakers"] * now.present["speakers"].unsqueeze(-1)
    row = torch.cat([now.joint, uttered.flatten(1), action.flatten(1)], -1)
    agent.critics["driver"](row)[0].sum().backward()
    wanted = -(action.grad * (1 - action.detach().square())).mean((0, 1))
    assert torch.allclose(bias.grad[0, 0], wanted, atol=1e-6)


def test_only_the_actors_move_in_the_actors_step():
    agent = learner(learning_starts=1, batch=8, policy_delay=10**6)
    before = [weight.clone() for weight in agent.policy.module.parameters()]
    agent.iterate()
    agent.iterate()
    assert all(torch.equal(a, b) for a, b in zip(before, agent.policy.module.parameters(), strict=True))
    assert any(bool(weight.grad.any()) for weight in agent.critics.parameters())
    assert all(weight.grad is None for weight in agent.policy.module.parameters())


def test_absent_agents_and_waiting_ones_teach_nothing():
    agent = learner()
    now, _, active, returns, _, noise = random_batch(agent)
    alive = {name: torch.rand(flag.shape) < 0.5 for name, flag in now.acts.items()}
    target = {name: value.clone() for name, value in returns.items()}
    loss = agent.critic_loss(now, active, target, alive)[0]
    for name, flags in alive.items():
        target[name][~flags] += 1e6
    assert torch.equal(loss, agent.critic_loss(now, active, target, alive)[0])
    decided = now.acts
    value = agent.actor_loss(now, active, decided, noise)
    for name, flags in decided.items():
        noise[name][~flags] += torch.randn_like(noise[name][~flags]) * 10
    assert torch.equal(value, agent.actor_loss(now, active, decided, noise))


def test_of_an_absent_agent_only_zeros_are_seen():
    agent = learner()
    heard, present = torch.rand(4, 2, 5) + 0.5, torch.tensor([[True, False]]).expand(4, 2)
    rows = agent.policy.rows("speakers", {"heard": heard}, present)
    assert torch.equal(rows[:, 0], heard[:, 0])
    assert not bool(rows[:, 1].any())


def test_forbidden_actions_are_never_chosen_and_who_waits_goes_on():
    agent = learner(exploration=constant(0.3))
    env, generator = Echo(64, 1), torch.Generator().manual_seed(0)
    for exploring in (generator, None):
        timestep, memory = env.reset(), agent.policy.start(64)
        before = None
        for _ in range(4):
            actions, memory = agent.policy.act(timestep, memory, exploring)
            assert bool((actions["speakers"][..., 0] != 3).all())
            assert bool((actions["driver"] >= -2).all() and (actions["driver"] <= 3).all())
            waits = ~timestep.groups["driver"].acts
            if before is not None:
                assert torch.equal(actions["driver"][waits], before["driver"][waits])
            before, timestep = actions, env.step(actions)


def test_without_a_generator_it_acts_greedily():
    agent = learner(exploration_noise={"kind": "gaussian", "scale": constant(1.0), "reversion": 0.15})
    timestep, memory = Echo(64, 1).reset(), agent.policy.start(64)
    first, again = (agent.policy.act(timestep, memory, None)[0] for _ in range(2))
    explored = agent.policy.act(timestep, memory, torch.Generator().manual_seed(0))[0]
    for name in first:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], explored[name])


@pytest.mark.parametrize("share", [True, False])
def test_it_learns_choices_and_ranges(share, over_seeds: OverSeeds):
    best = float(greedy_returns(Echo(256, 99), Repeats()).mean())

    def missing(seed: int) -> dict[str, float]:
        agent = learner(envs=32, timesteps=16_000, seed=seed, network=NETWORK | {"share_parameters": share})
        before = float(greedy_returns(Echo(256, 99), agent.policy).mean())
        iterate(agent, 500)
        return {"untrained": best - before, "trained": best - float(greedy_returns(Echo(256, 99), agent.policy).mean())}

    over_seeds(missing, at_least={"untrained": 5.0}, at_most={"trained": 1.5})


class Repeats:
    """The best policy there is."""

    def start(self, num_envs):
        return {}

    def act(self, timestep, memory, generator):
        heard, targets = (
            timestep.groups["speakers"].observation["heard"],
            timestep.groups["driver"].observation["targets"],
        )
        return {
            "speakers": torch.stack([heard[..., :3].argmax(-1), heard[..., 3:].argmax(-1)], -1),
            "driver": targets,
        }, {}


VARIANTS = {
    "plain": {},
    "twins": {
        "critics": 2, "policy_delay": 2, "target_noise": 0.2, "network": SEPARATE, "critic": "state",
        "exploration_noise": {"kind": "ornstein_uhlenbeck", "scale": constant(0.5), "reversion": 0.15},
        "exploration": constant(0.1),
    },
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("at", [3, 14])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, variant, at):
    """Before and after the first update."""
    check_kill_and_resume(lambda: learner(**VARIANTS[variant]), tmp_path, at=at, total_iterations=20)


def test_same_seed_same_bytes_and_another_seed_others():
    first, second, other = (learner(seed) for seed in (0, 0, 1))
    for agent in (first, second, other):
        iterate(agent, 12)
    assert bytes_of(first) == bytes_of(second)
    assert bytes_of(first) != bytes_of(other)


def test_critics_of_a_state_need_one():
    env = SimpleSpread(4, seed=0)
    env.state_size = 0
    with pytest.raises(UserError, match="critic"):
        MADDPG(env, DenseInputs(env.groups), settings(critic="state"), seed=0, timesteps=100)


def test_the_critics_see_every_group():
    """The driver's value depends on what a speaker sees and does."""
    agent = learner()
    now, _, active, *_ = random_batch(agent)
    row = torch.cat([now.joint, *[code.flatten(1) for code in active.values()]], -1).requires_grad_()
    agent.critics["driver"](row).sum().backward()
    assert row.shape[1] == 2 * 5 + 3 + 2 * 6 + 2
    assert bool((row.grad != 0).any(0).all())


def test_actors_and_targets_move_at_every_second_update_if_the_delay_is_two():
    agent = learner(learning_starts=64, gradient_steps=1, policy_delay=2, target={"rate": 0.25})
    pairs = ((agent.target_actors, agent.policy.module), (agent.target_critics, agent.critics))

    def weights(module):
        return torch.cat([weight.detach().flatten() for weight in module.parameters()]).clone()

    moved = []
    for _ in range(10):
        before = [(weights(target), weights(learned)) for target, learned in pairs]
        if "critic_loss" not in agent.iterate().metrics:
            continue
        after = [(weights(target), weights(learned)) for target, learned in pairs]
        delayed = agent._updates % 2 == 1
        moved.append(agent._updates)
        assert torch.equal(before[0][1], after[0][1]) == delayed
        assert not torch.equal(before[1][1], after[1][1])
        for (old, _), (new, learned) in zip(before, after, strict=True):
            torch.testing.assert_close(new, old if delayed else 0.75 * old + 0.25 * learned)
    assert moved == list(range(1, len(moved) + 1))
    assert len(moved) >= 4
