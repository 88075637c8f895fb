"""Proximal policy optimisation (Schulman et al. 2017) for a group of agents, each with its own local value.

Agents of a group share one module, are masked by `acts`, and may be absent or wait for their clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from marl_pipeline.algos.gae import generalised_advantages
from marl_pipeline.algos.rollout import Experience, masked_log_softmax
from marl_pipeline.config import PPOParams


class ActorCritic(Protocol):
    """What the learner needs of a policy: its weights, and what it makes of stored inputs."""

    @property
    def module(self) -> nn.Module: ...

    def evaluate(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [M, A, actions] and values [M, A] for M stored steps."""
        ...


@dataclass(frozen=True)
class Losses:
    policy: Tensor
    value: Tensor
    entropy: Tensor
    kl: Tensor
    clipped: Tensor


class PPO:
    """Updates one group's policy from its experience.

    The minibatch is a set of (step, copy) pairs with all their agents, so per-agent heads stay one batched product.
    """

    def __init__(self, policy: ActorCritic, params: PPOParams, *, learning_rate: float | None = None) -> None:
        self.policy = policy
        self.params = params
        self.optimizer = torch.optim.Adam(
            policy.module.parameters(), lr=learning_rate or params.learning_rate, eps=1e-5
        )

    def real_values(self, experience: Experience) -> tuple[Tensor, Tensor, Tensor]:
        """The critic's estimates in units of reward: at each step, at cuts, after the last step."""
        return experience.value, experience.cut_value, experience.last_value

    def value_targets(self, targets: Tensor, acts: Tensor) -> Tensor:
        """What the critic regresses on, from targets in units of reward."""
        return targets

    def update(self, experience: Experience, generator: torch.Generator) -> dict[str, float]:
        """Several epochs over one rollout; stops early when the policy has moved by `target_kl`.

        Returns:
            means over the minibatches: policy_loss, value_loss, entropy, kl, clip_fraction, and explained_variance.
        """
        p = self.params
        value, cut_value, last_value = self.real_values(experience)
        estimate = generalised_advantages(
            reward=experience.reward,
            discount=experience.discount,
            acts=experience.acts,
            value=value,
            cut=experience.cut,
            cut_value=cut_value,
            last_value=last_value,
            gamma=p.gamma,
            gae_lambda=p.gae_lambda,
        )
        acts = experience.acts.flatten(0, 1)
        if not bool(acts.any()):
            return {}
        advantage = _standardise(estimate.advantage.flatten(0, 1), acts)
        target = self.value_targets(estimate.value_target, experience.acts).flatten(0, 1)
        inputs = {key: tensor.flatten(0, 1) for key, tensor in experience.inputs.items()}
        action, mask = experience.action.flatten(0, 1), experience.action_mask.flatten(0, 1)
        old_log_prob, old_value = experience.log_prob.flatten(0, 1), experience.value.flatten(0, 1)

        rows = len(acts)
        history: list[Tensor] = []
        for _ in range(p.epochs):
            order = torch.randperm(rows, generator=generator, device=generator.device).to(acts.device)
            for part in order.chunk(p.minibatches):
                losses = self._losses(
                    {key: tensor[part] for key, tensor in inputs.items()},
                    mask[part],
                    action[part],
                    acts[part],
                    old_log_prob[part],
                    old_value[part],
                    advantage[part],
                    target[part],
                )
                self._descend(losses.policy + p.value_coefficient * losses.value - p.entropy * losses.entropy)
                history.append(
                    torch.stack([losses.policy, losses.value, losses.entropy, losses.kl, losses.clipped]).detach()
                )
            if float(history[-1][3]) > 1.5 * p.target_kl:
                break
        means = torch.stack(history).mean(0).tolist()
        names = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction")
        if not all(map(math.isfinite, means)):
            raise FloatingPointError(f"training diverged: {dict(zip(names, means, strict=True))}")
        residual = (estimate.value_target - value)[experience.acts]
        explained = 1 - residual.var() / estimate.value_target[experience.acts].var().clamp(min=1e-8)
        return {**dict(zip(names, means, strict=True)), "explained_variance": float(explained)}

    def _losses(
        self,
        inputs: dict[str, Tensor],
        mask: Tensor,
        action: Tensor,
        acts: Tensor,
        old_log_prob: Tensor,
        old_value: Tensor,
        advantage: Tensor,
        target: Tensor,
    ) -> Losses:
        p = self.params
        logits, value = self.policy.evaluate(inputs)
        log_probs = masked_log_softmax(logits, mask)
        log_ratio = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1) - old_log_prob
        log_ratio = torch.where(acts, log_ratio, 0.0)
        ratio = log_ratio.exp()
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - p.clip, 1 + p.clip) * advantage)
        clipped_value = old_value + (value - old_value).clamp(-p.clip, p.clip)
        value_loss = torch.maximum(
            functional.huber_loss(value, target, reduction="none", delta=p.huber_delta),
            functional.huber_loss(clipped_value, target, reduction="none", delta=p.huber_delta),
        )
        allowed = torch.where(mask, log_probs, 0.0)  # before the product: -inf x 0 has no gradient
        plogp = allowed.exp() * allowed
        weight = acts.float() / acts.sum().clamp(min=1)
        return Losses(
            policy=-(surrogate * weight).sum(),
            value=(value_loss * weight).sum(),
            entropy=-(plogp.sum(-1) * weight).sum(),
            kl=((ratio - 1 - log_ratio) * weight).sum(),
            clipped=(((ratio - 1).abs() > p.clip) * weight).sum(),
        )

    def _descend(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.policy.module.parameters(), self.params.max_grad_norm)
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.policy.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])


def _standardise(advantage: Tensor, acts: Tensor) -> Tensor:
    """Zero mean and unit variance over the agents that acted; 0 elsewhere."""
    live = advantage[acts]
    scaled = (advantage - live.mean()) / live.std(correction=0).clamp(min=1e-8)
    return torch.where(acts, scaled, 0.0)
