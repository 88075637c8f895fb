"""Proximal policy optimisation (Schulman et al. 2017) for a group of agents, each with its own local value.

Agents of a group share one module, are masked by `acts`, and may be absent or wait for their clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from marl_pipeline.algos.common.acceleration import Acceleration
from marl_pipeline.algos.common.actor_critic import ActorCriticSettings
from marl_pipeline.algos.common.algorithm import require_finite
from marl_pipeline.algos.common.gae import generalised_advantages
from marl_pipeline.algos.common.rollout import Experience
from marl_pipeline.algos.common.schedules import Rate
from marl_pipeline.config import Count, Fraction, NonNegative, Positive, Section
from marl_pipeline.nn.distributions import Distribution
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction
from marl_pipeline.nn.value_norm import ValueNorm

ROUNDINGS = 16
"""A deviation of so many roundings of the mean is none: the mean of equal numbers is off by up to 5."""


class PPOSettings(Section):
    """PPO, and independent PPO (de Witt et al. 2020) where there are several agents: every agent has a local critic.

    Attributes:
        horizon: L, steps in every environment between two updates.
        epochs, minibatches: passes over a rollout, and the parts of each pass; 1 part is full-batch learning.
        chunk: steps of the sequences that a GRU learns from; divides the horizon; 1 without recurrence.
        clip: how far the probability ratio, and the value around its old estimate, may pay.
        normalise_values: the critic learns standardised returns (`value_norm`).
        target_kl: an update stops when the policy has moved by 1.5 times this, by the estimate of its last minibatch
            (null: it never does).
        reward: `agent`, each agent's own, or `team`, what the team earned, for all alike.
    """

    horizon: Count
    epochs: Count
    minibatches: Count
    chunk: Count
    learning_rate: Rate
    gamma: Annotated[float, Field(gt=0.0, le=1.0)]
    gae_lambda: Fraction
    clip: Positive
    entropy: NonNegative
    value_coefficient: NonNegative
    huber_delta: Positive
    normalise_values: bool
    max_grad_norm: Positive
    target_kl: Positive | None
    reward: Literal["agent", "team"]
    network: ActorCriticSettings
    acceleration: Acceleration

    @model_validator(mode="after")
    def _chunks_fit(self) -> Self:
        if self.network.recurrence == "none" and self.chunk != 1:
            raise ValueError(f"chunk {self.chunk}: a network without recurrence learns from single steps (chunk 1)")
        if self.horizon % self.chunk:
            raise ValueError(f"chunk {self.chunk} does not divide horizon {self.horizon}")
        return self


class ActorCritic(Protocol):
    """What the learner needs of a group's policy: its weights, and what it makes of stored inputs."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def norm(self) -> ValueNorm | None:
        """The units of the critic's output, part of `module`; None where they are those of the reward."""
        ...

    def distribution(self, parameters: Tensor, mask: Tensor) -> Distribution:
        """Of the actions, from the parameters and the action mask."""
        ...

    def evaluate(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Parameters of the action distributions (logits) [M, A, P] and values [M, A] for M stored steps.

        A policy that learns from sequences is given [M, C, ...] and answers [M, C, A, ...].
        """
        ...


@dataclass(frozen=True)
class Losses:
    """Sums over the rows divided by the number of those where an agent acted; `kl` estimates how far the policy has
    moved, `clipped` is the share of ratios beyond the clip."""

    policy: Tensor
    value: Tensor
    entropy: Tensor
    kl: Tensor
    clipped: Tensor


def ppo_losses(
    *,
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    entropy: Tensor,
    acts: Tensor,
    value: Tensor,
    old_value: Tensor,
    target: Tensor,
    valued: Tensor,
    clip: float,
    huber_delta: float,
) -> Losses:
    """The clipped surrogate (Schulman et al. 2017, eq. 7) and the clipped value loss of MAPPO (Yu et al. 2022, eq. 3).

    With the ratio r = pi(a) / pi_old(a), the policy's loss is -min(r A, clip(r, 1 - c, 1 + c) A). The value's is the
    larger of two Huber losses: of the value, and of the value kept within c of its old estimate. The estimate of the KL
    divergence is r - 1 - log r (Schulman 2020, k3).

    Args:
        log_prob, old_log_prob, advantage, entropy: [..., A], read where `acts`.
        value, old_value, target: [..., A], read where `valued`.
        acts, valued: [..., A] bool, where the actor and where the critic learns.
        clip: c, for the ratio and for the value around its old estimate.
        huber_delta: where the Huber loss turns from a square to a line.
    """
    log_ratio = torch.where(acts, log_prob - old_log_prob, 0.0)
    ratio = log_ratio.exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    clipped_value = old_value + (value - old_value).clamp(-clip, clip)
    value_loss = torch.maximum(
        functional.huber_loss(value, target, reduction="none", delta=huber_delta),
        functional.huber_loss(clipped_value, target, reduction="none", delta=huber_delta),
    )
    count = acts.sum().clamp(min=1)
    weight = acts.float() / count
    return Losses(
        policy=-(surrogate * weight).sum(),
        value=(value_loss * (valued.float() / count)).sum(),
        entropy=(entropy * weight).sum(),
        kl=((ratio - 1 - log_ratio) * weight).sum(),
        clipped=(((ratio - 1).abs() > clip) * weight).sum(),
    )


@dataclass(frozen=True)
class Batch:
    """Stored steps [M, A, ...], or sequences of them [M, C, A, ...]; names as in `Experience`.

    Attributes:
        valued: bool, where the critic learns.
    """

    inputs: dict[str, Tensor]
    mask: Tensor
    action: Tensor
    acts: Tensor
    valued: Tensor
    old_log_prob: Tensor
    old_value: Tensor
    advantage: Tensor
    target: Tensor

    def __getitem__(self, rows: Tensor) -> Batch:
        return Batch(
            {key: tensor[rows] for key, tensor in self.inputs.items()},
            self.mask[rows],
            self.action[rows],
            self.acts[rows],
            self.valued[rows],
            self.old_log_prob[rows],
            self.old_value[rows],
            self.advantage[rows],
            self.target[rows],
        )


class PPO:
    """Updates one group's policy from its experience.

    The minibatch is a set of (step, environment) pairs with all their agents, so per-agent heads stay one batched
    product; with `settings.chunk` > 1 it is a set of sequences of that many steps.

    Args:
        settings: the learning rate begins its schedule; see `set_learning_rate`.
        reduction: what is shared with other workers.
    """

    def __init__(self, policy: ActorCritic, settings: PPOSettings, *, reduction: Reduction = NO_REDUCTION) -> None:
        self.policy = policy
        self.settings = settings
        self.reduction = reduction
        self._losses = settings.acceleration.compiled(self.losses)
        parameters = policy.module.parameters()
        self.optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate.start, eps=1e-5, fused=True)

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def real_values(self, experience: Experience) -> tuple[Tensor, Tensor, Tensor]:
        """The critic's estimates in units of reward: at each step, at the ends of episodes, after the last step."""
        values = experience.value, experience.final_value, experience.last_value
        norm = self.policy.norm
        return (
            values
            if norm is None
            else (norm.denormalise(values[0]), norm.denormalise(values[1]), norm.denormalise(values[2]))
        )

    def value_targets(self, targets: Tensor, valued: Tensor) -> Tensor:
        """What the critic regresses on, from targets in units of reward; `valued` says which of them it will."""
        norm = self.policy.norm
        if norm is None:
            return targets
        norm.update(targets[valued], self.reduction)
        return norm.normalise(targets)

    def _valued(self, experience: Experience) -> Tensor:
        """[L, E, A] bool, where the critic learns: at decisions and, of a team, also where an agent is absent, because
        what the others go on to earn belongs to the decisions it took before."""
        if self.settings.reward == "team":
            return experience.acts | ~experience.present
        return experience.acts

    def update(self, experience: Experience, generator: torch.Generator) -> dict[str, float]:
        """Several epochs over one rollout; stops early when the policy has moved by `target_kl`.

        Returns:
            means over the minibatches: policy_loss, value_loss, entropy, kl, clip_fraction, and explained_variance.

        Raises:
            UserError: training diverged.
        """
        p, valued = self.settings, self._valued(experience)
        value, final_value, last_value = self.real_values(experience)
        estimate = generalised_advantages(
            reward=experience.reward,
            discount=experience.discount,
            acts=valued,
            value=value,
            done=experience.done.unsqueeze(-1) | experience.truncated,
            final_value=final_value,
            last_value=last_value,
            gamma=p.gamma,
            gae_lambda=p.gae_lambda,
        )
        if not int(self.reduction.sum(experience.acts.sum())):
            return {}
        target = self.value_targets(estimate.value_target, valued)
        batch = self.batch(experience, _standardise(estimate.advantage, experience.acts, self.reduction), target)
        history: list[Tensor] = []
        for _ in range(p.epochs):
            for part in self._parts(batch, generator):
                with p.acceleration.autocast(part.target.device):
                    losses = self._losses(part)
                rows = part.acts.sum()
                self._descend(losses.policy + p.value_coefficient * losses.value - p.entropy * losses.entropy, rows)
                figures = torch.stack([losses.policy, losses.value, losses.entropy, losses.kl, losses.clipped])
                history.append(self.reduction.mean(figures.detach(), rows))
            if p.target_kl is not None and float(history[-1][3]) > 1.5 * p.target_kl:
                break
        means = torch.stack(history).mean(0).tolist()
        names = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction")
        means_by_name = dict(zip(names, means, strict=True))
        require_finite(means_by_name)
        _, unexplained = self.reduction.moments((estimate.value_target - value)[valued])
        _, spread = self.reduction.moments(estimate.value_target[valued])
        explained = 1 - unexplained / spread.clamp(min=1e-8)
        return {**means_by_name, "explained_variance": float(explained)}

    def batch(self, experience: Experience, advantage: Tensor, target: Tensor) -> Batch:
        """A rollout as the losses read it, with what it is to teach [L, E, A]."""
        chunk = self.settings.chunk
        return Batch(
            inputs={key: sequences(tensor, chunk) for key, tensor in experience.inputs.items()},
            mask=sequences(experience.action_mask, chunk),
            action=sequences(experience.action, chunk),
            acts=sequences(experience.acts, chunk),
            valued=sequences(self._valued(experience), chunk),
            old_log_prob=sequences(experience.log_prob, chunk),
            old_value=sequences(experience.value, chunk),
            advantage=sequences(advantage, chunk),
            target=sequences(target, chunk),
        )

    def _parts(self, batch: Batch, generator: torch.Generator) -> Iterator[Batch]:
        """One pass over the batch in random minibatches; the whole batch needs no order."""
        if self.settings.minibatches == 1:
            yield batch
            return
        rows, device = len(batch.acts), batch.acts.device
        order = torch.randperm(rows, generator=generator, device=generator.device).to(device)
        for part in order.tensor_split(min(self.settings.minibatches, rows)):
            yield batch[part]

    def losses(self, batch: Batch) -> Losses:
        """`ppo_losses` of the policy as it is now."""
        parameters, value = self.policy.evaluate(batch.inputs)
        policy = self.policy.distribution(parameters, batch.mask)
        return ppo_losses(
            log_prob=policy.log_prob(batch.action),
            old_log_prob=batch.old_log_prob,
            advantage=batch.advantage,
            entropy=policy.entropy(),
            acts=batch.acts,
            value=value,
            old_value=batch.old_value,
            target=batch.target,
            valued=batch.valued,
            clip=self.settings.clip,
            huber_delta=self.settings.huber_delta,
        )

    def _descend(self, loss: Tensor, rows: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.reduction.average_gradients(self.policy.module.parameters(), rows)
        nn.utils.clip_grad_norm_(self.policy.module.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.policy.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])


def _standardise(advantage: Tensor, acts: Tensor, reduction: Reduction) -> Tensor:
    """Zero mean and unit variance over the agents that acted; 0 elsewhere, and everywhere if all are equal."""
    mean, variance = reduction.moments(advantage[acts])
    rounding = ROUNDINGS * torch.finfo(advantage.dtype).eps * mean.abs()
    scaled = (advantage - mean) / variance.sqrt().clamp(min=1e-8)
    return torch.where(acts & (variance > rounding.square()), scaled, 0.0)


def sequences(stored: Tensor, chunk: int) -> Tensor:
    """[L, E, ...] as single steps [L x E, ...], or cut into sequences [L / chunk x E, chunk, ...]."""
    if chunk == 1:
        return stored.flatten(0, 1)
    steps, envs, *shape = stored.shape
    return stored.reshape(steps // chunk, chunk, envs, *shape).transpose(1, 2).flatten(0, 1)
