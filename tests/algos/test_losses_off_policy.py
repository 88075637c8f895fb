"""The losses of DQN, VDN, QMIX and MADDPG by known answers: small numbers worked out by hand, and the gradients' signs.

Networks are tables here: whatever they observe, they give the values written down in the test.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.algos.common.replay import ActionOutcome, Decisions, GroupObservation, JointObservation, Windows
from marl_pipeline.algos.idqn import IDQN, IDQNSettings
from marl_pipeline.algos.maddpg import MADDPG, MADDPGSettings, View
from marl_pipeline.algos.qmix import QMIX, QMIXSettings
from marl_pipeline.envs.protocol import Continuous, Discrete, GroupSpec, GroupStep, Timestep
from marl_pipeline.nn.mixers import Monotonic, Sum
from tests.algos.off_policy_runs import constant, preset


class Still:
    """Agents that see nothing and earn nothing: the shapes that a learner is built from."""

    def __init__(self, groups: dict[str, GroupSpec]) -> None:
        self.groups, self.num_envs, self.device, self.state_size = groups, 2, torch.device("cpu"), 1

    def reset(self, where: Tensor | None = None) -> Timestep:
        flags = torch.zeros(2, dtype=torch.bool)
        steps = {
            name: GroupStep(
                {"x": torch.zeros(2, spec.agents, 1)},
                torch.ones(2, spec.agents, spec.actions.mask_width, dtype=torch.bool),
                *[torch.ones(2, spec.agents, dtype=torch.bool)] * 2,
                torch.zeros(2, spec.agents),
                torch.ones(2, spec.agents),
            )
            for name, spec in self.groups.items()
        }
        return Timestep(steps, torch.zeros(2, 1), torch.zeros(2), flags, flags, {})


PAIR = {"pair": GroupSpec(2, {"x": (1,)}, Discrete(3))}
NETWORK = {
    "hidden": [4],
    "activation": "relu",
    "recurrence": "none",
    "duelling": False,
    "layer_norm": False,
    "share_parameters": True,
    "agent_ids": False,
}


class Table(nn.Module):
    """Values [..., A, actions] as written down, for rows of any leading shape."""

    def __init__(self, values: list) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, rows: Tensor, state: object) -> tuple[Tensor, None]:
        return self.values.expand(*rows.shape[:-2], *self.values.shape[-2:]), None


def seen(*leading: int, mask: list | None = None, acts: list | None = None) -> GroupObservation:
    allowed = torch.ones(*leading, 2, 3, dtype=torch.bool)
    if mask is not None:
        allowed = allowed & torch.tensor(mask)
    live = torch.ones(*leading, 2, dtype=torch.bool)
    deciding = live if acts is None else torch.tensor(acts)
    return GroupObservation({"x": torch.zeros(*leading, 2, 1)}, allowed, deciding, live, torch.zeros_like(live))


def idqn(**changes: object) -> IDQN:
    env = Still(PAIR)
    small = {"network": NETWORK, "reward_scale": 1.0, "priorities": None, "buffer_size": 100, "learning_starts": 10}
    made = IDQN(env, DenseInputs(env.groups), preset(IDQNSettings, "idqn", small | changes), seed=0, timesteps=100)
    made._networks["pair"] = Table([[1.0, 5.0, 9.0], [3.0, 2.0, 7.0]])
    made._target["pair"] = Table([[10.0, 20.0, 90.0], [40.0, 30.0, 70.0]])
    return made


def decisions(valid: list[list[bool]]) -> Decisions:
    """Agent 0 took action 0, agent 1 action 2; later action 2 is forbidden to both."""
    rows = len(valid)
    return Decisions(
        now=seen(rows),
        action=torch.tensor([[0, 2]] * rows),
        returns=torch.tensor([[0.5, -1.0]] * rows),
        factor=torch.tensor([[0.5, 0.0]] * rows),
        later=seen(rows, mask=[True, True, False]),
        valid=torch.tensor(valid),
    )


@pytest.mark.parametrize(
    ("double", "next_value"),
    [
        (True, 20.0),  # the learned network picks action 1 (5 > 1; 9 is forbidden), the target says 20 of it
        (False, 20.0),  # the target's own best of 10 and 20
    ],
)
def test_a_target_of_dqn(double, next_value):
    error, value = idqn(double=double)._temporal_differences("pair", decisions([[True, True]]))
    assert value.tolist() == [[1.0, 7.0]]
    assert error.tolist() == [[1.0 - (0.5 + 0.5 * next_value), 7.0 - -1.0]], "no value after a factor of 0"


def test_double_dqn_values_the_choice_of_the_learned_network_by_the_target():
    """With its table turned round, agent 0 prefers action 0 (5 > 1), of which the target says 10; the target's own best
    allowed action is worth 20."""
    of = idqn(double=True)
    of._networks["pair"] = Table([[5.0, 1.0, 9.0], [3.0, 2.0, 7.0]])
    error, _ = of._temporal_differences("pair", decisions([[True, True]]))
    assert error.tolist() == [[5.0 - (0.5 + 0.5 * 10.0), 8.0]]
    plain = idqn(double=False)
    plain._networks["pair"] = of._networks["pair"]
    assert plain._temporal_differences("pair", decisions([[True, True]]))[0].tolist() == [[5.0 - 10.5, 8.0]]


def test_only_the_value_of_the_action_taken_moves_and_towards_its_target():
    of = idqn(double=True)
    error, _ = of._temporal_differences("pair", decisions([[True, True], [True, False]]))
    assert error[1].tolist() == [1.0 - 10.5, 0.0]
    error.square().sum().backward()
    slope = of._networks["pair"].values.grad
    assert slope.tolist() == [[2 * 2 * (1.0 - 10.5), 0.0, 0.0], [0.0, 0.0, 2 * 8.0]]
    assert of._target["pair"].values.grad is None


def test_rewards_are_scaled_before_they_are_learned():
    error, _ = idqn(reward_scale=0.1)._temporal_differences("pair", decisions([[True, True]]))
    assert error[0].tolist() == pytest.approx([1.0 - (0.05 + 10.0), 7.0 + 0.1])


def test_the_loss_of_dqn_is_hubers_weighted_by_importance_over_the_decisions(monkeypatch):
    """Errors 0.5 and 3 (beyond delta 1): 0.5 x 0.25 and 1 x (3 - 0.5); the third entry is no decision."""
    of = idqn(huber_delta=1.0, target={"every": 10**6, "rate": 1.0})
    weight = of._networks["pair"].values
    known = torch.tensor([[0.5, 3.0], [0.0, 0.0]])
    monkeypatch.setattr(of, "_errors", lambda group, found: (known + 0.0 * weight.sum(), known * 0 + 2.0))
    monkeypatch.setattr(of, "_draw", lambda: (torch.tensor([0, 1]), torch.tensor([0.5, 1.0])))
    monkeypatch.setattr(of._replay, "decisions", lambda *_, **__: decisions([[True, True], [True, False]]))
    monkeypatch.setattr(of._optimizer, "step", lambda loss, progress, rows: rows.float())
    loss, _, rows = of._update().tolist()
    assert loss == pytest.approx(0.5 * (0.125 + 2.5) / 3)
    assert rows == 3


SMALL_QMIX = {
    "network": NETWORK, "mixer": {"kind": "sum", "width": 1, "hyper": 1}, "reward_scale": 1.0, "gamma": 0.5,
    "window": 2, "burn_in": 0, "targets": "n_step", "n_step": 1, "buffer_size": 100, "learning_starts": 10,
}  # fmt: skip
VALUES = [[[1.0, 2.0, 9.0], [3.0, 1.0, 9.0]]]
OLD_VALUES = [[[10.0, 4.0, 90.0], [6.0, 8.0, 90.0]]]


def qmix(mixer: nn.Module, target_mixer: nn.Module, **changes: object) -> QMIX:
    env = Still(PAIR)
    chosen = preset(QMIXSettings, "qmix", SMALL_QMIX | changes)
    made = QMIX(env, DenseInputs(env.groups), chosen, seed=0, timesteps=100)
    made._networks["pair"], made._target_networks["pair"] = Table(VALUES), Table(OLD_VALUES)
    made._learned["mixer"], made._target["mixer"] = mixer, target_mixer
    return made


def window(terminated: tuple[bool, bool] = (False, False), valid: tuple[bool, bool] = (True, True)) -> Windows:
    """Two steps of one environment: both agents take action 0, then both action 1; the team earns 1, then 2. Action 2
    is always forbidden; agent 1 does not act at the second step."""
    nothing = torch.zeros(2, 1, dtype=torch.bool)
    acts = [[[True, True]], [[True, False]], [[True, True]]]
    return Windows(
        observations=JointObservation({"pair": seen(3, 1, mask=[True, True, False], acts=acts)}, torch.zeros(3, 1, 1)),
        outcomes={"pair": ActionOutcome(torch.tensor([[[0, 0]], [[1, 1]]]), torch.zeros(2, 1, 2), torch.ones(2, 1, 2))},
        team_reward=torch.tensor([[1.0], [2.0]]),
        terminated=torch.tensor(terminated).unsqueeze(-1),
        truncated=nothing,
        valid=torch.tensor(valid).unsqueeze(-1),
        ends=nothing,
        memory={},
    )


ROWS = {"pair": torch.zeros(3, 1, 2, 1)}


@pytest.mark.parametrize(
    ("double", "last"),
    [
        (True, 4.0 + 6.0),  # the learned network prefers actions 1 and 0, of which the target says 4 and 6
        (False, 10.0 + 8.0),  # the target's own best
    ],
)
def test_the_team_value_of_vdn_is_the_sum_and_its_target_the_double_one(double, last):
    of = qmix(Sum(), Sum(), double=double)
    loss, mean = of._losses(window(), ROWS)
    first, second = 1.0 + 3.0, 2.0 + 0.0  # who does not act adds nothing
    after_first = 4.0 if double else 10.0  # agent 1 does not act there
    wanted = [first - (1.0 + 0.5 * after_first), second - (2.0 + 0.5 * last)]
    assert float(loss) == pytest.approx(sum(error**2 for error in wanted) / 2)
    assert float(mean) == pytest.approx((first + second) / 2)
    loss.backward()
    slope = of._networks["pair"].values.grad[0]
    assert slope.tolist() == [[wanted[0], wanted[1], 0.0], [wanted[0], 0.0, 0.0]]
    assert of._target_networks["pair"].values.grad is None


def test_a_terminated_episode_has_no_value_after_it_and_what_is_not_valid_no_loss():
    of = qmix(Sum(), Sum(), double=True)
    loss, mean = of._losses(window(terminated=(False, True), valid=(False, True)), ROWS)
    assert float(loss) == pytest.approx((2.0 - 2.0) ** 2)
    assert float(mean) == 2.0
    loss, _ = of._losses(window(terminated=(True, False), valid=(True, False)), ROWS)
    assert float(loss) == pytest.approx((4.0 - 1.0) ** 2)


def test_two_steps_of_the_team():
    """1 + 0.5 x 2 + 0.25 x 10 = 4.5 for the first step, and 2 + 0.5 x 10 = 7 for the second, where the window ends."""
    of = qmix(Sum(), Sum(), double=True, n_step=2)
    assert float(of._losses(window(), ROWS)[0]) == pytest.approx(((4.0 - 4.5) ** 2 + (2.0 - 7.0) ** 2) / 2)


def known_mixer() -> Monotonic:
    """|w| = (2, 3), b = 0.5, then |v| = 1.5 and a state's value of 0.25, whatever the state."""
    mixer = Monotonic(2, 1, width=1, hyper=1, generator=torch.Generator())
    for parameter in mixer.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        mixer.first_weight.bias.copy_(torch.tensor([-2.0, 3.0]))
        mixer.second_weight.bias.copy_(torch.tensor([-1.5]))
        mixer.bias.bias.copy_(torch.tensor([0.5, 1.0]))
        mixer.value.weight.copy_(torch.tensor([[0.75]]))
        mixer.value.bias.copy_(torch.tensor([-0.5]))
    return mixer


@pytest.mark.parametrize(
    ("utilities", "hidden"),
    [
        ((1.0, 1.0), 2.0 + 3.0 + 0.5),
        ((1.0, -1.0), math.exp(2.0 - 3.0 + 0.5) - 1.0),  # elu below 0
    ],
)
def test_a_known_mixing(utilities, hidden):
    given = torch.tensor([utilities], requires_grad=True)
    mixed = known_mixer()(given, torch.zeros(1, 1))
    assert float(mixed.detach()) == pytest.approx(1.5 * hidden + 0.25)
    mixed.sum().backward()
    slope = 1.0 if hidden > 0 else math.exp(-0.5)
    assert given.grad[0].tolist() == pytest.approx([1.5 * 2.0 * slope, 1.5 * 3.0 * slope], rel=1e-5)


def test_the_loss_of_qmix_mixes_both_sides_and_its_target_by_the_target_mixer():
    """The first step: utilities 1 and 3 mix to 1.5 x (2 + 9 + 0.5) + 0.25 = 17.5. Its target by the sum: 1 + 4 / 2."""
    of = qmix(known_mixer(), Sum(), double=True)
    loss, mean = of._losses(window(valid=(True, False)), ROWS)
    assert float(mean) == pytest.approx(17.5)
    assert float(loss) == pytest.approx((17.5 - 3.0) ** 2)
    loss.backward()
    slope = of._networks["pair"].values.grad[0]
    assert slope[:, 0].tolist() == pytest.approx([2 * 14.5 * 1.5 * 2.0, 2 * 14.5 * 1.5 * 3.0])


DRIVERS = {"driver": GroupSpec(2, {"x": (1,)}, Continuous(1, -1.0, 1.0))}


CRITIC = {"hidden": [1], "activation": "relu", "recurrence": "none", "share_parameters": True}
SEPARATE = CRITIC | {"share_parameters": False}


def maddpg(**changes: object) -> MADDPG:
    """Critics Q_i = 10 + 2 a_0 + 1 a_1 and their twins 4 below it (in the target 2 above, twins 6), actors at 0."""
    env = Still(DRIVERS)
    small = {
        "network": CRITIC, "critics": 2, "critic": "observations", "raw_penalty": 0.0,
        "reward_scale": 1.0, "buffer_size": 100, "learning_starts": 10, "exploration": constant(0.0),
    }  # fmt: skip
    made = MADDPG(env, DenseInputs(env.groups), preset(MADDPGSettings, "maddpg", small | changes), seed=0,
                  timesteps=100)  # fmt: skip
    for critics, outputs in ((made.critics["driver"], (0.0, -4.0)), (made.target_critics["driver"], (2.0, 6.0))):
        with torch.no_grad():
            critics.first.weight.copy_(torch.tensor([0.0, 0.0, 2.0, 1.0]))  # observations, then actions
            critics.first.bias.fill_(10.0)
            critics.output.weight.fill_(1.0)
            critics.output.bias.copy_(torch.tensor(outputs).reshape(2, 1, 1))
    for actors in (made.policy.module["driver"], made.target_actors["driver"]):
        for parameter in actors.parameters():
            nn.init.zeros_(parameter)
    return made


def view(rows: int = 1, acts: list[list[bool]] | None = None, present: list[list[bool]] | None = None) -> View:
    live = torch.ones(rows, 2, dtype=torch.bool)
    return View(
        rows={"driver": torch.zeros(rows, 2, 1)},
        joint=torch.zeros(rows, 2),
        mask={"driver": torch.ones(rows, 2, 0, dtype=torch.bool)},
        acts={"driver": live if acts is None else torch.tensor(acts)},
        present={"driver": live if present is None else torch.tensor(present)},
        truncated={"driver": torch.zeros(rows, 2, dtype=torch.bool)},
    )


def codes(*values: float) -> dict[str, Tensor]:
    return {"driver": torch.tensor(values).reshape(1, 2, 1)}


def test_a_target_of_maddpg_is_the_reward_and_the_smaller_twin_of_the_target_actors():
    of = maddpg()
    with torch.no_grad():
        of.target_actors["driver"].output.bias.fill_(math.atanh(0.5))  # both target actors say 0.5
    returns, factor = {"driver": torch.tensor([[1.0, -1.0]])}, {"driver": torch.tensor([[0.5, 0.0]])}
    found = of.targets(view(), codes(-1.0, -1.0), returns, factor, codes(0.0, 0.0))
    assert found["driver"][0].tolist() == pytest.approx([1.0 + 0.5 * (10.0 + 1.0 + 0.5 + 2.0), -1.0])
    waiting = of.targets(view(acts=[[True, False]]), codes(-1.0, -1.0), returns, factor, codes(0.0, 0.0))
    assert waiting["driver"][0].tolist() == pytest.approx([1.0 + 0.5 * (10.0 + 1.0 - 1.0 + 2.0), -1.0])
    absent = of.targets(view(present=[[True, False]]), codes(-1.0, -1.0), returns, factor, codes(0.0, 0.0))
    assert absent["driver"][0].tolist() == pytest.approx([1.0 + 0.5 * (10.0 + 1.0 + 2.0), -1.0])
    noisy = of.targets(view(), codes(-1.0, -1.0), returns, factor, codes(0.25, 2.0))
    assert noisy["driver"][0].tolist() == pytest.approx([1.0 + 0.5 * (10.0 + 1.5 + 1.0 + 2.0), -1.0])  # held at 1


def test_the_critics_loss_is_the_mean_square_of_each_twin_s_error():
    """In force 0.5 and -1: Q = 10 + 1 - 1 = 10, its twin 6; agent 1 is left out."""
    of = maddpg()
    alive = {"driver": torch.tensor([[True, False]])}
    loss, value = of.critic_loss(view(), codes(0.5, -1.0), {"driver": torch.tensor([[7.0, 99.0]])}, alive)
    assert float(loss.detach()) == pytest.approx((10.0 - 7.0) ** 2 + (6.0 - 7.0) ** 2)
    assert float(value) == pytest.approx(10.0)
    loss.backward()
    slope = of.critics["driver"].output.bias.grad.flatten().tolist()
    assert slope == pytest.approx([2 * 3.0, 2 * -1.0])


def test_the_actors_climb_their_own_value_by_their_own_action_alone():
    """Actor 0 at tanh(0) = 0 beside -1: Q = 10 + 0 - 1; actor 1 beside 0.5: Q = 10 + 1 + 0; dQ/da = 2 and 1."""
    of = maddpg(network=SEPARATE)
    both = {"driver": torch.ones(1, 2, dtype=torch.bool)}
    loss = of.actor_loss(view(), codes(0.5, -1.0), both, codes(0.0, 0.0))
    assert float(loss.detach()) == pytest.approx(-(9.0 + 11.0) / 2)
    loss.backward()
    slope = of.policy.module["driver"].output.bias.grad[0, :, 0].tolist()
    assert slope == pytest.approx([-2.0 / 2, -1.0 / 2]), "descending raises both actions"


def test_saturated_actors_are_drawn_back():
    """Raw outputs of +-2 cost 0.1 x 4 each; the slope of the penalty is 0.1 x 2 x 2, of the value (1 - tanh^2) w."""
    of = maddpg(network=SEPARATE, raw_penalty=0.1)
    with torch.no_grad():
        of.policy.module["driver"].output.bias.copy_(torch.tensor([2.0, -2.0]).reshape(1, 2, 1))
    both = {"driver": torch.ones(1, 2, dtype=torch.bool)}
    loss = of.actor_loss(view(), codes(0.0, 0.0), both, codes(0.0, 0.0))
    reached = math.tanh(2.0)
    assert float(loss.detach()) == pytest.approx(0.4 - (10.0 + 2.0 * reached + 10.0 - reached) / 2)
    loss.backward()
    slope = of.policy.module["driver"].output.bias.grad[0, :, 0].tolist()
    flat = 1 - reached**2
    assert slope == pytest.approx([(0.4 - 2.0 * flat) / 2, (-0.4 - 1.0 * flat) / 2], abs=1e-5)
