"""Independent Q-learning: its target a second time, what it learns, and runs that resume to the same bytes."""

from __future__ import annotations

import pytest
import torch

from marl_pipeline.algos.common.action_values import ActionValueSettings, EpsilonGreedy, QNetwork
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.algos.idqn import IDQN, IDQNSettings
from marl_pipeline.envs.protocol import GroupStep, Timestep
from marl_pipeline.errors import UserError
from marl_pipeline.nn.recurrent import RecurrentState
from tests.algos.off_policy_runs import bytes_of, check_kill_and_resume, constant, greedy_rewards, iterate, preset
from tests.algos.signs import Signs
from tests.algos.toy import Colours
from tests.learning import OverSeeds

NETWORK = {
    "hidden": [16], "activation": "relu", "recurrence": "none", "share_parameters": True, "duelling": True,
    "layer_norm": False, "agent_ids": True,
}  # fmt: skip
PRIORITIES = {"exponent": 0.6, "importance": constant(0.5), "floor": 1e-3}
SMALL = {
    "network": NETWORK, "reward_scale": 1.0, "gamma": 0.5, "n_step": 1, "look_ahead": 2, "batch": 32, "train_freq": 4,
    "gradient_steps": 4, "buffer_size": 2000, "learning_starts": 64,
    "optimizer": {"kind": "adam", "learning_rate": constant(0.005), "epsilon": 1e-5, "max_grad_norm": 10.0},
}  # fmt: skip


def toy(seed=0, timesteps=4000, **changes):
    env = Colours(8, seed)
    return IDQN(env, DenseInputs(env.groups), preset(IDQNSettings, "idqn", SMALL | changes), seed=seed,
                timesteps=timesteps)  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"double": False}, {"reward": "team", "n_step": 3, "look_ahead": 4}])
def test_the_temporal_difference_term_by_term(changes):
    algorithm = toy(**changes)
    iterate(algorithm, 6)
    s = algorithm._settings
    with torch.no_grad():
        for p in algorithm._target.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    position = algorithm._replay.draw(20, s.look_ahead, torch.Generator().manual_seed(0))
    for group, spec in algorithm._environment.groups.items():
        d = algorithm._replay.decisions(
            group, position, n=s.n_step, look_ahead=s.look_ahead, gamma=s.gamma, team=s.reward == "team"
        )
        errors = algorithm._temporal_differences(group, d)[0].detach()
        assert d.valid.sum() > 5
        for b in range(20):
            for agent in range(spec.agents):
                if not d.valid[b, agent]:
                    assert errors[b, agent] == 0
                    continue
                now, later = ({k: v[b] for k, v in x.observation.items()} for x in (d.now, d.later))
                value = values_of(algorithm._learned, algorithm, group, now)[agent][int(d.action[b, agent])]
                old = values_of(algorithm._target, algorithm, group, later)[agent]
                ranked = values_of(algorithm._learned, algorithm, group, later)[agent] if s.double else old
                allowed = [a for a, ok in enumerate(d.later.action_mask[b, agent].tolist()) if ok]
                best = max(allowed, key=lambda a: ranked[a])
                target = float(d.returns[b, agent]) + float(d.factor[b, agent]) * old[best]
                assert float(errors[b, agent]) == pytest.approx(value - target, abs=1e-5)


@torch.no_grad()
def values_of(networks, algorithm, group, observation):
    rows = algorithm._inputs(group, observation)
    return networks[group](rows.unsqueeze(0), None)[0][0].tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"network": NETWORK | {"share_parameters": False, "agent_ids": False, "layer_norm": True, "duelling": False}},
        {"priorities": PRIORITIES},
    ],
    ids=["shared", "separate", "prioritised"],
)
def test_groups_with_different_clocks_and_actions_learn_their_optimum(changes, over_seeds: OverSeeds):
    def earned(seed: int) -> dict[str, float]:
        algorithm = toy(seed, timesteps=6400, **changes)
        iterate(algorithm, 200)
        return greedy_rewards(Colours(64, 99), algorithm.policy, 8)

    over_seeds(earned, at_least={"workers": 0.95, "boss": 0.95})


@pytest.mark.parametrize("at", [1, 3, 6])
@pytest.mark.parametrize("changes", [{}, {"priorities": PRIORITIES}], ids=["uniform", "prioritised"])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, at, changes):
    check_kill_and_resume(lambda: toy(**changes), tmp_path, at=at, total_iterations=8)


def test_same_seed_same_bytes_and_another_seed_others():
    first, second, other = toy(0), toy(0), toy(1)
    for algorithm in (first, second, other):
        iterate(algorithm, 4)
    assert bytes_of(first) == bytes_of(second)
    assert bytes_of(first) != bytes_of(other)


def test_updates_change_every_weight_and_the_target_moves():
    algorithm = toy(target={"every": 1, "rate": 0.5})
    before = {name: value.clone() for name, value in algorithm._learned.state_dict().items()}
    old = {name: value.clone() for name, value in algorithm._target.state_dict().items()}
    iterate(algorithm, 8)
    for name, value in algorithm._learned.state_dict().items():
        assert not torch.equal(before[name], value), name
        assert not torch.equal(old[name], algorithm._target.state_dict()[name]), name


def test_exploration_draws_allowed_actions_evenly_and_greed_takes_the_best():
    env = Colours(500, 0)
    algorithm = IDQN(env, DenseInputs(env.groups), preset(IDQNSettings, "idqn", SMALL), seed=0, timesteps=100)
    timestep = env.reset()
    policy, generator = algorithm.policy, torch.Generator().manual_seed(0)
    greedy = policy.act(timestep, {}, None)[0]["workers"]
    policy.epsilon = 1.0
    anything = policy.act(timestep, {}, generator)[0]["workers"]
    counts = torch.bincount(anything.flatten(), minlength=4)
    assert counts[3] == 0, "the last action is never allowed"
    assert counts[:3].min() > 250
    policy.epsilon = 0.3
    some = policy.act(timestep, {}, generator)[0]["workers"]
    assert float((some == greedy).float().mean()) == pytest.approx(0.7 + 0.3 / 3, abs=0.05)


def test_masked_actions_are_never_the_best():
    class Fixed(torch.nn.Module):
        def forward(self, rows, state):
            return torch.tensor([1.0, 3.0, 2.0]).expand(*rows.shape[:-1], 3), None

    step = GroupStep({"x": torch.zeros(1, 2, 1)}, torch.tensor([[[True, False, True], [True, True, True]]]),
                     *[torch.ones(1, 2, dtype=torch.bool)] * 2, torch.zeros(1, 2), torch.ones(1, 2))  # fmt: skip
    nothing = torch.zeros(1, dtype=torch.bool)
    timestep = Timestep({"g": step}, torch.zeros(1, 0), torch.zeros(1), nothing, nothing, {})
    policy = EpsilonGreedy(Colours(1, 0), torch.nn.ModuleDict({"g": Fixed()}), lambda group, seen: seen["x"], memory=0)
    assert policy.act(timestep, {}, None)[0]["g"].tolist() == [[2, 1]]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("recurrence", ["none", "gru"])
def test_agents_do_not_see_each_other_and_ids_tell_them_apart(share, recurrence):
    draws = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 4, 2, 5, generator=draws)
    state = RecurrentState(torch.zeros(4, 2, 8), torch.zeros(3, 4) > 0, torch.ones(3, 4, 2) > 0)
    for ids in (True, False):
        changes = {"hidden": [8, 8], "recurrence": recurrence, "layer_norm": True, "share_parameters": share}
        network = q_network(5, 2, 3, **changes, agent_ids=ids)
        values, _ = network(rows, state)
        other = rows.clone()
        other[:, :, 1] += 1.0
        assert torch.equal(network(other, state)[0][:, :, 0], values[:, :, 0])
        same = network(rows[:, :, :1].expand(3, 4, 2, 5), state)[0]
        assert torch.allclose(same[:, :, 0], same[:, :, 1]) == (share and not ids)


def q_network(inputs, agents, actions, **changes):
    settings = ActionValueSettings.model_validate(NETWORK | changes)
    return QNetwork(inputs, agents, actions, settings, torch.Generator().manual_seed(0))


def test_a_memory_starts_anew_where_an_episode_starts():
    network, draws = q_network(5, 2, 3, hidden=[8], recurrence="gru"), torch.Generator().manual_seed(0)
    rows, start = torch.randn(4, 2, 2, 5, generator=draws), torch.randn(2, 2, 8, generator=draws)
    fresh = torch.tensor([[False, False], [False, False], [True, False], [False, False]])
    there = torch.ones(4, 2, 2, dtype=torch.bool)
    values, after = network(rows, RecurrentState(start, fresh, there))
    anew = RecurrentState(torch.zeros(2, 2, 8), fresh[2:] & False, there[2:])
    short, short_after = network(rows[2:], anew)
    assert torch.allclose(values[2:, :1], short[:, :1], atol=1e-6)
    assert torch.allclose(after[:1], short_after[:1], atol=1e-6)
    assert not torch.allclose(values[2:, 1:], short[:, 1:], atol=1e-6)


def test_a_known_duelling_value():
    """V = 2, A = (1, 3, 5): the mean advantage is 3, so Q = (0, 2, 4) (Wang et al. 2016, eq. 9)."""
    head = q_network(1, 1, 3).head
    torch.nn.init.zeros_(head.value.weight)
    torch.nn.init.zeros_(head.advantage.weight)
    head.value.bias.data = torch.tensor([[[2.0]]])
    head.advantage.bias.data = torch.tensor([[[1.0, 3.0, 5.0]]])
    assert head(torch.ones(1, 16)).tolist() == [[0.0, 2.0, 4.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": NETWORK | {"recurrence": "gru"}}, "idqn: network.recurrence must be none"),
        (
            {"buffer_size": 16, "learning_starts": 16, "look_ahead": 3},
            "buffer_size is too small: 2 steps in each of 8 environments.*at least 32",
        ),
        ({"n_step": 5}, "look_ahead 2 is shorter than n_step 5"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        toy(**changes)


def test_figures_of_an_iteration_are_means_over_its_gradient_steps():
    algorithm = toy(learning_starts=1, train_freq=8, gradient_steps=3)
    figures = [torch.tensor([1.0, 10.0, 100.0]), torch.tensor([2.0, 20.0, 200.0]), torch.tensor([6.0, 60.0, 600.0])]
    algorithm._update = figures.copy().pop
    metrics = algorithm.iterate().metrics
    assert (metrics["loss"], metrics["q_mean"], metrics["grad_norm"]) == (3.0, 30.0, 300.0)
    algorithm._update = lambda: torch.tensor([float("nan"), 0.0, 0.0])
    with pytest.raises(UserError, match="training diverged"):
        algorithm.iterate()


def test_the_loss_is_a_mean_over_decisions_even_if_there_is_one():
    env = Signs(4, 0)
    chosen = preset(IDQNSettings, "idqn", SMALL | {"huber_delta": 0.5, "learning_starts": 2000})
    algorithm = IDQN(env, DenseInputs(env.groups), chosen, seed=0, timesteps=4000)
    iterate(algorithm, 3)
    position = torch.tensor([5])
    algorithm._draw = lambda: (position, torch.tensor([3.0]))
    decisions = algorithm._replay.decisions("seers", position, n=1, look_ahead=2, gamma=0.5, team=False)
    error, value = (float(part) for part in algorithm._temporal_differences("seers", decisions))
    size = abs(error)
    huber = 0.5 * size**2 if size < 0.5 else 0.5 * (size - 0.25)
    loss, mean, _ = algorithm._update().tolist()
    assert (loss, mean) == pytest.approx((3.0 * huber, value), abs=1e-6)
    assert size > 0.1
