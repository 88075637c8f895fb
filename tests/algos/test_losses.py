"""The losses of PPO and MAPPO by known answers: small numbers by hand, and which way each gradient points."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from marl_pipeline.algos.common.rollout import Experience
from marl_pipeline.algos.ppo import PPO, Batch, Losses, _standardise
from marl_pipeline.nn.distributions import Categorical
from marl_pipeline.nn.reduction import NO_REDUCTION
from marl_pipeline.nn.value_norm import ValueNorm
from tests.algos.learners import settings

CLIP = 0.2
H75 = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))  # entropy of (3/4, 1/4): 0.5623


class Tabular:
    """One logit pair and one value for each stored row: what is learned is what is looked up."""

    def __init__(self, probability: list[float], value: list[float], norm: ValueNorm | None = None) -> None:
        first = torch.tensor(probability)
        self.logits = nn.Parameter(torch.stack([first.log(), (1 - first).log()], -1))
        self.value = nn.Parameter(torch.tensor(value))
        self.norm = norm
        self.module = nn.ParameterDict({"logits": self.logits, "value": self.value})

    def evaluate(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.logits[inputs["row"]].unsqueeze(-2), self.value[inputs["row"]].unsqueeze(-1)

    def distribution(self, parameters: Tensor, mask: Tensor) -> Categorical:
        return Categorical(parameters, mask)


def learner(policy: Tabular, **changes: object) -> PPO:
    return PPO(policy, settings("mappo", **{"clip": CLIP, "huber_delta": 100.0, "epochs": 1} | changes))


def column(*values: float) -> Tensor:
    return torch.tensor(values).unsqueeze(-1)


def losses(
    probability: list[float],
    *,
    old_probability: float = 0.5,
    advantage: list[float] | None = None,
    value: list[float] | None = None,
    old_value: list[float] | None = None,
    target: list[float] | None = None,
    acts: list[bool] | None = None,
    valued: list[bool] | None = None,
    **changes: object,
) -> tuple[Losses, Tabular]:
    """Rows of one agent that took action 0 of two, both allowed."""
    rows = len(probability)
    zeros = [0.0] * rows
    policy = Tabular(probability, value or zeros)
    one = torch.ones(rows, 1, dtype=torch.bool)
    batch = Batch(
        inputs={"row": torch.arange(rows)},
        mask=torch.ones(rows, 1, 2, dtype=torch.bool),
        action=torch.zeros(rows, 1, dtype=torch.int64),
        acts=one if acts is None else torch.tensor(acts).unsqueeze(-1),
        valued=one if valued is None else torch.tensor(valued).unsqueeze(-1),
        old_log_prob=torch.full((rows, 1), math.log(old_probability)),
        old_value=column(*(old_value or zeros)),
        advantage=column(*(advantage or zeros)),
        target=column(*(target or zeros)),
    )
    return learner(policy, **changes).losses(batch), policy


@pytest.mark.parametrize(
    ("probability", "advantage", "surrogate", "moves"),
    [
        (0.55, 2.0, 2.2, True),  # r = 1.1: inside the clip
        (0.75, 2.0, 2.4, False),  # r = 1.5 pays as 1.2
        (0.75, -2.0, -3.0, True),  # r = 1.5 costs as 1.5
        (0.25, 2.0, 1.0, True),  # r = 0.5 pays as 0.5
        (0.25, -2.0, -1.6, False),  # r = 0.5 saves as 0.8
    ],
)
def test_the_surrogate_is_clipped_where_it_would_pay_to_go_on(probability, advantage, surrogate, moves):
    found, policy = losses([probability], advantage=[advantage])
    assert float(found.policy) == pytest.approx(-surrogate, rel=1e-6)
    found.policy.backward()
    slope = float(policy.logits.grad[0, 0])  # -A r (1 - p) where it moves
    wanted = -advantage * probability / 0.5 * (1 - probability) if moves else 0.0
    assert slope == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("value", "target", "loss", "slope"),
    [
        (1.0, 2.0, 0.5 * 1.8**2, 0.0),  # the value clipped to 0.2 is further off than 1.0: max, not min (0.5)
        (1.0, -1.0, 0.5 * 2.0**2, 2.0),  # the value itself is further off: max, not min (0.72)
        (-1.0, -2.0, 0.5 * 1.8**2, 0.0),  # the same below
        (0.1, 2.0, 0.5 * 1.9**2, -1.9),  # inside the clip both are one
    ],
)
def test_the_value_loss_is_the_larger_of_the_clipped_and_the_plain_one(value, target, loss, slope):
    found, policy = losses([0.5], value=[value], target=[target])
    assert float(found.value) == pytest.approx(loss, rel=1e-6)
    found.value.backward()
    assert float(policy.value.grad) == pytest.approx(slope, abs=1e-6)


def test_the_value_loss_is_linear_beyond_delta():
    found, policy = losses([0.5, 0.5], value=[0.1, 0.1], target=[10.0, 0.5], huber_delta=1.0)
    assert float(found.value) == pytest.approx((1.0 * (9.9 - 0.5) + 0.5 * 0.4**2) / 2, rel=1e-6)
    found.value.backward()
    assert policy.value.grad.tolist() == pytest.approx([-1.0 / 2, -0.4 / 2], abs=1e-6)


def test_entropy_kl_and_clip_fraction_of_known_ratios():
    found, _ = losses([0.75, 0.25, 0.55])  # r = 1.5, 0.5, 1.1
    kl = [r - 1 - math.log(r) for r in (1.5, 0.5, 1.1)]
    assert kl == pytest.approx([0.094535, 0.193147, 0.004690], abs=1e-6)
    assert float(found.kl) == pytest.approx(sum(kl) / 3, abs=1e-6)
    assert float(found.clipped) == pytest.approx(2 / 3)
    h55 = -(0.55 * math.log(0.55) + 0.45 * math.log(0.45))
    assert float(found.entropy) == pytest.approx((2 * H75 + h55) / 3, abs=1e-6)
    same, _ = losses([0.5])
    assert float(same.kl) == 0.0
    assert float(same.clipped) == 0.0
    assert float(same.entropy) == pytest.approx(math.log(2.0))


def test_rows_without_a_decision_count_nowhere_and_absent_ones_only_for_the_critic():
    found, policy = losses(
        [0.55, 0.9, 0.9], advantage=[2.0, 7.0, 7.0], value=[0.1, 0.1, 0.1], target=[1.1, 1.1, 1.1],
        acts=[True, False, False], valued=[True, True, False],
    )  # fmt: skip
    assert float(found.policy) == pytest.approx(-2.2, rel=1e-6)
    assert float(found.value) == pytest.approx(2 * 0.5, rel=1e-6)  # two values over one decision
    assert float(found.kl) == pytest.approx(1.1 - 1 - math.log(1.1), abs=1e-6)
    (found.policy + found.value).backward()
    assert policy.logits.grad[1:].abs().sum() == 0
    assert policy.value.grad.tolist() == pytest.approx([-1.0, -1.0, 0.0])


def experience(
    policy: Tabular,
    *,
    reward: list[float],
    value: list[float] | None = None,
    old_probability: list[float] | None = None,
) -> Experience:
    """One environment and agent whose every step took action 0 and ended its episode."""
    steps = len(reward)
    old = policy.logits.detach().softmax(-1)[:, 0] if old_probability is None else torch.tensor(old_probability)

    def shaped(values: Tensor) -> Tensor:
        return values.reshape(steps, 1, 1)

    flag = torch.ones(steps, 1, 1, dtype=torch.bool)
    return Experience(
        inputs={"row": torch.arange(steps).unsqueeze(-1)},
        action=torch.zeros(steps, 1, 1, dtype=torch.int64),
        log_prob=shaped(old.log()),
        value=shaped(torch.tensor(value) if value is not None else policy.value.detach().clone()),
        action_mask=torch.ones(steps, 1, 1, 2, dtype=torch.bool),
        acts=flag,
        present=flag,
        reward=shaped(torch.tensor(reward)),
        discount=torch.zeros(steps, 1, 1),
        done=torch.ones(steps, 1, dtype=torch.bool),
        truncated=torch.zeros(steps, 1, 1, dtype=torch.bool),
        final_value=torch.zeros(steps, 1, 1),
        last_value=torch.zeros(1, 1),
    )


def updated(policy: Tabular, data: Experience, **changes: object) -> dict[str, float]:
    """One step on the whole batch; the gradients of the total loss stay on the parameters."""
    own = {"max_grad_norm": 1e9, "minibatches": 1, "horizon": len(data.acts)} | changes
    return learner(policy, **own).update(data, torch.Generator().manual_seed(0))


def test_the_entropy_is_a_bonus():
    """Without advantages the loss is minus 0.5 H: dH/dz = -p (log p + H) = -+0.2060 at p = (3/4, 1/4)."""
    policy = Tabular([0.75], [0.0])
    figures = updated(policy, experience(policy, reward=[0.0]), entropy=0.5, value_coefficient=1.0)
    assert figures["entropy"] == pytest.approx(H75, abs=1e-6)
    slope = -0.5 * -0.75 * (math.log(0.75) + H75)
    assert slope == pytest.approx(0.1030, abs=1e-4)
    assert policy.logits.grad[0].tolist() == pytest.approx([slope, -slope], abs=1e-6)
    assert float(policy.logits.detach().softmax(-1)[0, 0]) < 0.75, "the policy becomes more even"


def test_the_value_is_weighed_and_descends_to_its_target():
    policy = Tabular([0.5], [1.0])
    updated(policy, experience(policy, reward=[3.0]), entropy=0.0, value_coefficient=0.25)
    assert float(policy.value.grad) == pytest.approx(0.25 * (1.0 - 3.0), abs=1e-6)
    assert float(policy.value.detach()) > 1.0


def test_what_was_better_than_expected_becomes_likelier():
    """Returns 1 and 3 with a critic that says 0 are advantages of -1 and 1; -A (1 - p) / 2 is the slope at ratio 1."""
    policy = Tabular([0.75, 0.75], [0.0, 0.0])
    figures = updated(policy, experience(policy, reward=[1.0, 3.0]), entropy=0.0, value_coefficient=0.0)
    assert figures["policy_loss"] == pytest.approx(0.0, abs=1e-6)
    assert policy.logits.grad[:, 0].tolist() == pytest.approx([0.125, -0.125], abs=1e-6)
    worse, better = policy.logits.detach().softmax(-1)[:, 0].tolist()
    assert worse < 0.75 < better


def test_the_share_of_the_returns_that_the_critic_explains():
    policy = Tabular([0.5] * 4, [1.0, 2.0, 3.0, 5.0])
    figures = updated(policy, experience(policy, reward=[1.0, 2.0, 3.0, 4.0]))
    assert figures["explained_variance"] == pytest.approx(1 - 0.1875 / 1.25, abs=1e-6)


def test_value_normalisation_by_hand():
    """Mean 2 and variance 1 at first; then 5 with the weight of 0.01 / 0.0199 (decay 0.99, debiased)."""
    norm = ValueNorm(decay=0.99)
    norm.update(torch.tensor([1.0, 3.0]))
    assert norm.normalise(torch.tensor([3.0, 0.0])).tolist() == pytest.approx([1.0, -2.0], abs=1e-5)
    assert norm.denormalise(torch.tensor([0.5])).tolist() == pytest.approx([2.5], abs=1e-5)
    norm.update(torch.tensor([5.0, 5.0]))
    mean = (0.99 * 0.02 + 0.05) / 0.0199  # 3.5075
    variance = (0.99 * 0.05 + 0.25) / 0.0199 - mean**2  # 2.7474
    assert norm.denormalise(torch.tensor([1.0])).tolist() == pytest.approx([mean + math.sqrt(variance)], abs=1e-4)


def test_mappo_values_are_in_units_of_reward_and_teaches_in_standardised_ones():
    """A critic that says 0.5 means 2 + 0.5 x 1; returns 1 and 3 move the norm to mean 2 and variance 1 again, so the
    critic is taught -1 and 1, from 0.5: slopes 1.5 / 2 and -0.5 / 2. The advantages are 1 - 2.5 and 3 - 2.5."""
    norm = ValueNorm(decay=0.99)
    norm.update(torch.tensor([1.0, 3.0]))
    policy = Tabular([0.75, 0.75], [0.5, 0.5], norm)
    figures = updated(policy, experience(policy, reward=[1.0, 3.0]), entropy=0.0, value_coefficient=1.0)
    assert policy.value.grad.tolist() == pytest.approx([1.5 / 2, -0.5 / 2], abs=1e-4)
    assert figures["value_loss"] == pytest.approx((0.5 * 1.5**2 + 0.5 * 0.5**2) / 2, abs=1e-4)
    assert policy.logits.grad[:, 0].tolist() == pytest.approx([0.125, -0.125], abs=1e-4)
    assert figures["explained_variance"] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("count", [1, 2, 175, 2048, 9600, 100_003])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -7.77, 1e4 / 3, 1e-12, 3.3e9])
def test_equal_advantages_teach_nothing(count, value):
    """The mean of equal numbers is off by a rounding, which must not be divided by itself."""
    equal = torch.full((count, 1, 1), value)
    assert not bool(_standardise(equal, torch.ones_like(equal, dtype=torch.bool), NO_REDUCTION).any())


def test_advantages_that_differ_by_little_are_standardised_all_the_same():
    near = torch.tensor([1000.0, 1000.1, 1000.2, 50.0]).reshape(4, 1, 1)
    acts = torch.tensor([True, True, True, False]).reshape(4, 1, 1)
    wanted = torch.tensor([-1.5, 0.0, 1.5, 0.0]).sign() * 1.5**0.5
    torch.testing.assert_close(_standardise(near, acts, NO_REDUCTION).flatten(), wanted, atol=2e-3, rtol=0)
