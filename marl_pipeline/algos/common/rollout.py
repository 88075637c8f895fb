"""Experience: what a controller did in an environment, by group, ready for a learner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.nn.distributions import masked_log_softmax, sample


@dataclass(frozen=True)
class Decision:
    """What one group decided at a timestep.

    Attributes:
        inputs: what the policy needs to decide again the same way, [E, ...] each: references into tables and the
            small dynamic state, never the looked-up rows.
        action: [E, A, *shape].
        log_prob, value: [E, A] float32.
    """

    inputs: dict[str, Tensor]
    action: Tensor
    log_prob: Tensor
    value: Tensor


class Controller(Protocol):
    """Decides for every group of an environment."""

    def decide(self, timestep: Timestep, generator: torch.Generator | None) -> dict[str, Decision]:
        """Samples with `generator`; takes the most probable action without one.

        A controller with memory moves it on when it samples and only then: without a generator it is asked what it
        thinks of a timestep, not told that time passes.
        """
        ...


@dataclass(frozen=True)
class Experience:
    """L steps of one group in E copies.

    Attributes:
        inputs: [L, E, ...] each, as in `Decision`.
        action: [L, E, A, *shape].
        log_prob, value, acts, present, reward, discount: [L, E, A].
        action_mask: [L, E, A, mask_width].
        cut: [L, E], the episode ended with this transition.
        truncated: [L, E, A], the agent alone was truncated by this transition.
        cut_value: [L, E, A], the critic's value of the state in which the episode, or the agent's part in it, ended;
            read only where `cut` or `truncated`, and multiplied by a `discount` of 0 where it was terminated.
        last_value: [E, A].
    """

    inputs: dict[str, Tensor]
    action: Tensor
    log_prob: Tensor
    value: Tensor
    action_mask: Tensor
    acts: Tensor
    present: Tensor
    reward: Tensor
    discount: Tensor
    cut: Tensor
    truncated: Tensor
    cut_value: Tensor
    last_value: Tensor


def decide_from(
    inputs: dict[str, Tensor], logits: Tensor, value: Tensor, mask: Tensor, generator: torch.Generator | None
) -> Decision:
    """Draws one action per agent from masked logits [E, A, actions]."""
    log_probs = masked_log_softmax(logits, mask)
    action = sample(log_probs, generator)
    log_prob = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    return Decision(inputs, action, log_prob, value)


class Collector:
    """Steps one environment with one controller and keeps where it is between rollouts.

    Args:
        on_reset: told the [E] mask of the copies that start new episodes, for a controller that has memory to forget.
    """

    def __init__(
        self,
        environment: Environment,
        controller: Controller,
        generator: torch.Generator,
        *,
        on_reset: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.environment = environment
        self.controller = controller
        self.generator = generator
        self._on_reset = on_reset
        self._timestep = environment.reset()

    @torch.no_grad()
    def collect(self, steps: int) -> dict[str, Experience]:
        """Runs `steps` steps in every copy; one `Experience` for each group of the environment."""
        groups = list(self.environment.groups)
        records: dict[str, list[dict[str, Tensor]]] = {name: [] for name in groups}
        inputs: dict[str, list[dict[str, Tensor]]] = {name: [] for name in groups}
        for _ in range(steps):
            before = self._timestep
            decisions = self.controller.decide(before, self.generator)
            after = self.environment.step({name: decisions[name].action for name in groups})
            done = after.done
            any_done = bool(done.any())
            final = self.controller.decide(after, None) if any_done or _any_agent_truncated(after) else None
            for name in groups:
                decision, was, now = decisions[name], before.groups[name], after.groups[name]
                cut_value = final[name].value if final is not None else torch.zeros_like(decision.value)
                inputs[name].append(decision.inputs)
                records[name].append(
                    {
                        "action": decision.action,
                        "log_prob": decision.log_prob,
                        "value": decision.value,
                        "action_mask": was.action_mask,
                        "acts": was.acts,
                        "present": was.present,
                        "reward": now.reward,
                        "discount": now.discount,
                        "cut": done,
                        "truncated": now.agents_truncated(),
                        "cut_value": cut_value,
                    }
                )
            self._timestep = self.environment.reset(done) if any_done else after
            if any_done and self._on_reset is not None:
                self._on_reset(done)
        last = self.controller.decide(self._timestep, None)
        return {
            name: Experience(
                inputs={key: torch.stack([row[key] for row in inputs[name]]) for key in inputs[name][0]},
                last_value=last[name].value,
                **{key: torch.stack([row[key] for row in records[name]]) for key in records[name][0]},
            )
            for name in groups
        }

    def state_dict(self) -> dict[str, object]:
        return {"environment": self.environment.state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Goes on where the saved collector was, bit for bit."""
        environment: Any = state["environment"]
        generator: Any = state["generator"]
        nobody = torch.zeros(self.environment.num_envs, dtype=torch.bool, device=self.environment.device)
        self.environment.load_state_dict(environment)
        self._timestep = self.environment.reset(nobody)
        self.environment.load_state_dict(environment)  # a reset may have drawn from the environment's generator
        self.generator.set_state(generator)


def _any_agent_truncated(timestep: Timestep) -> bool:
    """Whether an agent leaves by truncation while its episode goes on."""
    return any(step.truncated is not None and bool(step.truncated.any()) for step in timestep.groups.values())
