"""QMIX and VDN: their formulas a second time, the game that tells them apart, runs that resume to the same bytes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.algos.common.returns import lambda_returns, n_step_returns
from marl_pipeline.algos.qmix import QMIX, QMIXSettings
from marl_pipeline.envs.matrix.games import two_step
from marl_pipeline.envs.protocol import Continuous, GroupSpec
from marl_pipeline.errors import UserError
from marl_pipeline.nn.mixers import Monotonic, Sum
from marl_pipeline.nn.recurrent import RecurrentState
from tests.algos.off_policy_runs import bytes_of, check_kill_and_resume, constant, greedy_rewards, iterate, preset
from tests.algos.toy import Colours
from tests.algos.wild import Wild
from tests.learning import OverSeeds

SMALL = {
    "network": {"hidden": [16], "activation": "relu", "recurrence": "none", "share_parameters": True,
                "duelling": False, "layer_norm": False, "agent_ids": True},
    "mixer": {"kind": "monotonic", "width": 8, "hyper": 16},
    "reward_scale": 1.0, "window": 4, "batch": 16, "train_freq": 4, "gradient_steps": 4, "buffer_size": 2000,
    "learning_starts": 64,
    "targets": "lambda", "td_lambda": 0.5, "n_step": 2,
}  # fmt: skip
FAST = {
    "gamma": 0.5,
    "optimizer": {"kind": "adam", "learning_rate": constant(0.005), "epsilon": 1e-5, "max_grad_norm": 10.0},
}
RECURRENT = {**SMALL, "network": {**SMALL["network"], "recurrence": "gru"}, "burn_in": 1}


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def toy(seed=0, timesteps=4000, environment=None, **changes):
    env = environment or Colours(8, seed)
    return QMIX(env, DenseInputs(env.groups), preset(QMIXSettings, "qmix", SMALL | changes), seed=seed,
                timesteps=timesteps)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), agents=st.integers(1, 6), scale=st.floats(0.01, 100.0))
def test_the_teams_value_never_falls_as_a_utility_rises(seed, agents, scale):
    torch.manual_seed(seed)
    mixer = Monotonic(agents, 5, width=4, hyper=6, generator=draws(seed))
    utilities = (torch.randn(64, agents) * scale).requires_grad_()
    mixer(utilities, torch.randn(64, 5) * scale).sum().backward()
    assert (utilities.grad >= 0).all()
    assert utilities.grad.max() > 0


def test_the_best_joint_action_is_every_agents_own_best():
    torch.manual_seed(0)
    mixer, state, values = (
        Monotonic(2, 3, width=8, hyper=8, generator=draws()),
        torch.randn(50, 3),
        torch.randn(50, 2, 4),
    )
    joint = torch.stack(
        [mixer(torch.stack([values[:, 0, a], values[:, 1, b]], -1), state) for a in range(4) for b in range(4)], -1
    )
    own = mixer(values.amax(-1), state)
    assert torch.allclose(joint.amax(-1), own)


def test_mixing_is_the_papers_formula():
    torch.manual_seed(1)
    mixer, utilities, state = (
        Monotonic(3, 5, width=4, hyper=6, generator=draws()),
        torch.randn(7, 2, 3),
        torch.randn(7, 2, 5),
    )
    got = mixer(utilities, state).detach().numpy()
    w = {name: value.numpy().astype(np.float64) for name, value in mixer.state_dict().items()}

    def layer(name, x):
        return w[f"{name}.weight"][0, 0] @ x + w[f"{name}.bias"][0, 0]

    for i in range(7):
        for j in range(2):
            q, s = utilities[i, j].numpy(), state[i, j].numpy()
            hidden = np.maximum(layer("hidden", s), 0)
            first = np.abs(layer("first_weight", hidden[:6])).reshape(3, 4)
            second = np.abs(layer("second_weight", hidden[6:]))
            bias, value = np.split(layer("bias", s), 2)
            x = q @ first + bias
            elu = np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)
            assert got[i, j] == pytest.approx(elu @ second + layer("value", np.maximum(value, 0))[0], abs=1e-5)


def test_the_mixer_grows_linearly_with_the_agents():
    def size(agents):
        return sum(p.numel() for p in Monotonic(agents, 10, width=8, hyper=8, generator=draws()).parameters())

    assert size(143) - size(142) == size(2) - size(1)
    assert Sum()(torch.tensor([[1.0, 2.0, 3.5]]), torch.zeros(1, 2)).tolist() == [6.5]


def random_window(seed, length=7, batch=5):
    g = torch.Generator().manual_seed(seed)
    reward, next_value = torch.randn(length, batch, generator=g), torch.randn(length, batch, generator=g)
    discount = 0.9 * (torch.rand(length, batch, generator=g) > 0.2)
    return reward, discount, next_value, torch.rand(length, batch, generator=g) < 0.2


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_n_step_returns_term_by_term(n):
    reward, discount, next_value, truncated = random_window(n)
    got = n_step_returns(reward, discount, next_value, truncated, n)
    for b in range(5):
        for k in range(7):
            assert got[k, b] == pytest.approx(
                n_step(reward[:, b], discount[:, b], next_value[:, b], truncated[:, b], k, n)
            )


def n_step(reward, discount, next_value, truncated, k, n):
    """r_k + d_k r_k+1 + ... + d_k ... d_j V'_j, where j is the last step of the sum."""
    total, factor = 0.0, 1.0
    for j in range(k, min(k + n, len(reward))):
        total += factor * float(reward[j])
        factor *= float(discount[j])
        if truncated[j]:
            break
    return total + factor * float(next_value[j])


@pytest.mark.parametrize("td_lambda", [0.0, 0.4, 1.0])
def test_lambda_returns_are_the_weighted_n_step_returns(td_lambda):
    """(1 - lambda) sum_n lambda^(n-1) G_n, the last one with all the weight that is left (Sutton & Barto, eq. 12.3)."""
    reward, discount, next_value, truncated = random_window(11)
    got = lambda_returns(reward, discount, next_value, truncated, td_lambda)
    for b in range(5):
        for k in range(7):
            end = next((j for j in range(k, 7) if truncated[j, b]), 6)
            steps = end - k + 1
            column = [x[:, b] for x in (reward, discount, next_value, truncated)]
            wanted = sum((1 - td_lambda) * td_lambda ** (n - 1) * n_step(*column, k, n) for n in range(1, steps))
            wanted += td_lambda ** (steps - 1) * n_step(*column, k, steps)
            assert got[k, b] == pytest.approx(wanted, abs=1e-5)


def test_known_returns():
    """Rewards 1, 2, values 10, 20 after them, discount 1/2: 1 + 10/2 = 6 in one step, 1 + (2 + 20/2)/2 = 7 in two."""
    window = (torch.tensor([[1.0], [2.0]]), torch.full((2, 1), 0.5), torch.tensor([[10.0], [20.0]]))
    truncated = torch.zeros(2, 1, dtype=torch.bool)
    assert n_step_returns(*window, truncated, 1).flatten().tolist() == [6.0, 12.0]
    assert n_step_returns(*window, truncated, 2).flatten().tolist() == [7.0, 12.0]
    assert lambda_returns(*window, truncated, 0.5).flatten().tolist() == [6.5, 12.0]


@pytest.mark.parametrize("changes", [SMALL, RECURRENT, {**SMALL, "mixer": {"kind": "sum", "width": 1, "hyper": 1}},
                                     {**SMALL, "double": False, "targets": "n_step"}])  # fmt: skip
def test_the_loss_is_the_mean_squared_error_of_the_teams_value(changes):
    """All of an update's loss a second time, row by row: masks, clocks, double targets, memory, ends of episodes."""
    algorithm = toy(**changes)
    iterate(algorithm, 6)
    s = algorithm._settings
    with torch.no_grad():
        for p in algorithm._target.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    position = algorithm._replay.draw(12, s.window, torch.Generator().manual_seed(0))
    w = algorithm._replay.windows(position, s.window)
    rows = {group: algorithm._inputs(group, seen.observation) for group, seen in w.observations.groups.items()}
    loss, q_mean = (value.detach() for value in algorithm._losses(w, rows))
    total, mean, count = 0.0, 0.0, 0
    for b in range(12):
        team, next_value = reference_team(algorithm, w, rows, b)
        column = [w.team_reward[:, b], s.gamma * ~w.terminated[:, b], torch.tensor(next_value), w.truncated[:, b]]
        if s.targets == "lambda":
            target = lambda_returns(*[x.unsqueeze(1) for x in column], s.td_lambda)[:, 0]
        else:
            target = n_step_returns(*[x.unsqueeze(1) for x in column], s.n_step)[:, 0]
        for k in range(s.burn_in, s.window):
            if w.valid[k, b]:
                total, mean, count = total + (team[k] - float(target[k])) ** 2, mean + team[k], count + 1
    assert count > 12
    assert float(loss) == pytest.approx(total / count, rel=1e-3)
    assert float(q_mean) == pytest.approx(mean / count, rel=1e-3)


@torch.no_grad()
def reference_team(algorithm, w, rows, b):
    """The team's value at each step of window b, and the target network's after it, one step after another."""
    nets, old = algorithm._learned["networks"], algorithm._target["networks"]
    length = algorithm._settings.window
    values, old_values = {}, {}
    for group in rows:
        for store, networks in ((values, nets), (old_values, old)):
            memory = w.memory[group][b : b + 1] if group in w.memory else None
            store[group] = []
            for k in range(length + 1):
                row = rows[group][k : k + 1, b : b + 1]
                present = w.observations.groups[group].present[k : k + 1, b : b + 1]
                state = None
                if memory is not None:
                    state = RecurrentState(memory, torch.zeros(1, 1, dtype=torch.bool), present)
                out, memory = networks[group](row, state)
                store[group].append(out[0, 0])
                if memory is not None and k < length and w.ends[k, b]:
                    memory = torch.zeros_like(memory)
    team, next_value = [], []
    for k in range(length):
        chosen, best = [], []
        for group, seen in w.observations.groups.items():
            for agent in range(rows[group].shape[2]):
                action = int(w.outcomes[group].action[k, b, agent])
                chosen.append(float(values[group][k][agent, action]) if seen.acts[k, b, agent] else 0.0)
                picker = values if algorithm._settings.double else old_values
                allowed = [a for a, ok in enumerate(seen.action_mask[k + 1, b, agent].tolist()) if ok]
                pick = max(allowed, key=lambda a: float(picker[group][k + 1][agent, a]))
                best.append(float(old_values[group][k + 1][agent, pick]) if seen.acts[k + 1, b, agent] else 0.0)
        mix, old_mix = algorithm._learned["mixer"], algorithm._target["mixer"]
        team.append(float(mix(torch.tensor(chosen), w.observations.state[k, b])))
        next_value.append(float(old_mix(torch.tensor(best), w.observations.state[k + 1, b])))
    return team, next_value


@pytest.mark.parametrize("changes", [{}, {"mixer": {"kind": "sum", "width": 1, "hyper": 1}}, RECURRENT])
def test_groups_with_different_clocks_and_actions_learn_together(changes, over_seeds: OverSeeds):
    def earned(seed: int) -> dict[str, float]:
        algorithm = toy(seed, timesteps=6400, **FAST, **changes)
        iterate(algorithm, 200)
        return greedy_rewards(Colours(64, 99), algorithm.policy, 8)

    over_seeds(earned, at_least={"workers": 0.95, "boss": 0.95})


TWO_STEP = SMALL | FAST | {
    "exploration": constant(1.0), "gamma": 0.99, "targets": "n_step", "n_step": 1, "window": 2, "batch": 32,
    "train_freq": 2, "gradient_steps": 2, "target": {"every": 50, "rate": 1.0},
}  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), [("monotonic", 8.0), ("sum", 7.0)])
def test_qmix_finds_the_optimum_of_the_two_step_game_and_vdn_does_not(kind, value, over_seeds: OverSeeds):
    """Rashid et al. 2018, section 5: a sum does not see that 8 is worth the risk."""

    def found(seed: int) -> float:
        changes = TWO_STEP | {"mixer": {"kind": kind, "width": 8, "hyper": 8}}
        algorithm = toy(seed, environment=two_step(16, seed=seed), **changes)
        iterate(algorithm, 210)
        return 2 * sum(greedy_rewards(two_step(1, seed=0), algorithm.policy, 2).values())

    over_seeds(found, at_least=value, at_most=value)


@pytest.mark.parametrize("at", [1, 3, 6])
@pytest.mark.parametrize("changes", [{}, RECURRENT], ids=["feed-forward", "recurrent"])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, at, changes):
    check_kill_and_resume(lambda: toy(**changes), tmp_path, at=at, total_iterations=8)


def test_same_seed_same_bytes_and_another_seed_others():
    first, second, other = toy(0), toy(0), toy(1)
    for algorithm in (first, second, other):
        iterate(algorithm, 4)
    assert bytes_of(first) == bytes_of(second)
    assert bytes_of(first) != bytes_of(other)


def test_the_mixer_sees_all_rows_where_an_environment_has_no_state():
    class Stateless(Colours):
        def __init__(self, num_envs, seed):
            super().__init__(num_envs, seed)
            self.state_size = 0

        def _timestep(self, *rewards):
            step = super()._timestep(*rewards)
            return type(step)(step.groups, step.state[:, :0], step.team_reward, step.terminated, step.truncated, {})

    algorithm = toy(environment=Stateless(8, 0))
    assert algorithm._learned["mixer"].hidden.weight.shape[-1] == 2 * 3 + 1
    iterate(algorithm, 4)
    assert math.isfinite(algorithm.iterate().metrics["loss"])


def test_continuous_actions_are_refused():
    env = Wild(2, 0)
    env.groups = {"b": GroupSpec(1, {"number": ()}, Continuous(2, -1.0, 1.0))}
    with pytest.raises(UserError, match=r"qmix: group 'b' has Continuous.*use an algorithm with an actor"):
        toy(environment=env)


def test_learning_waits_until_there_is_a_window():
    algorithm = toy(learning_starts=1, train_freq=1)
    assert [len(algorithm.iterate().metrics) for _ in range(5)] == [1, 1, 1, 4, 4]


@pytest.mark.parametrize(("changes", "least"), [(SMALL, 40), (RECURRENT, 64)], ids=["feed-forward", "recurrent"])
def test_a_replay_too_small_for_a_window_is_refused(changes, least):
    with pytest.raises(UserError, match=f"qmix: buffer_size is too small.*at least {least}"):
        toy(**changes | {"buffer_size": 16, "learning_starts": 16})
    algorithm = toy(**changes | {"buffer_size": least, "learning_starts": 16})
    iterate(algorithm, 12)
    assert math.isfinite(algorithm.iterate().metrics["loss"])
