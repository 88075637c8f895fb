"""All groups of a team as they act in a rollout, with what their networks remember of their episodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.algos.common.actor_critic import GroupActorCritic
from marl_pipeline.algos.common.messages import Message, delivered
from marl_pipeline.envs.protocol import GroupStep, Timestep


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


class Actors:
    """Decides for every group; groups that do not learn act by their mode, as they will when they are used.

    Attributes:
        learning: names of the groups that sample their actions and whose experience is kept.

    Args:
        groups: in the order of the environment's groups.
        message: shown by one group to another.
    """

    def __init__(
        self,
        groups: Mapping[str, GroupActorCritic],
        num_envs: int,
        device: torch.device,
        *,
        learning: Collection[str],
        message: Message | None = None,
    ) -> None:
        self._groups, self.learning, self._message = groups, frozenset(learning), message
        self._memory: dict[str, Tensor] = {}
        for name, group in groups.items():
            if group.recurrent:
                width = group.width
                self._memory[f"{name}.actor"] = torch.zeros(num_envs, group.spec.agents, width, device=device)
                self._memory[f"{name}.critic"] = torch.zeros(num_envs, group.critic.rows, width, device=device)
        self._fresh = torch.ones(num_envs, dtype=torch.bool, device=device)

    @torch.no_grad()
    def decide(self, timestep: Timestep, generator: torch.Generator | None) -> dict[str, Decision]:
        """Samples with `generator` and moves the memories on; without one it takes the most probable actions and says
        what it thinks of a timestep, as if no time passed."""
        decisions: dict[str, Decision] = {}
        shown: Tensor | None = None
        for name, group in self._groups.items():
            step = timestep.groups[name]
            if self._message is not None and name == self._message.receiver and shown is not None:
                step = delivered(step, self._message.field, shown)
            decisions[name], parameters = self._decide(group, step, timestep.state, generator)
            if self._message is not None and name == self._message.sender:
                shown = self._message(parameters, step.action_mask)
        if generator is not None:
            self._fresh = torch.zeros_like(self._fresh)
        return decisions

    def _decide(
        self, group: GroupActorCritic, step: GroupStep, state: Tensor, generator: torch.Generator | None
    ) -> tuple[Decision, Tensor]:
        if group.name not in self.learning:
            return self._decide_frozen(group, step, generator)
        inputs = group.stored(step, state)
        if group.recurrent:
            inputs["fresh"] = self._fresh
            inputs["actor_memory"] = self._memory[f"{group.name}.actor"]
            inputs["critic_memory"] = self._memory[f"{group.name}.critic"]
        output = group.output(inputs)
        policy = group.distribution(output.parameters, step.action_mask)
        action = policy.mode() if generator is None else policy.sample(generator)
        if generator is not None and output.actor_memory is not None and output.critic_memory is not None:
            self._memory[f"{group.name}.actor"] = output.actor_memory
            self._memory[f"{group.name}.critic"] = output.critic_memory
        return Decision(inputs, action, policy.log_prob(action), output.value), output.parameters

    def _decide_frozen(
        self, group: GroupActorCritic, step: GroupStep, generator: torch.Generator | None
    ) -> tuple[Decision, Tensor]:
        """The mode, by the actor alone: nobody learns from it, so it has no value and stores nothing."""
        memory = self._memory.get(f"{group.name}.actor")
        parameters, memory = group.act(step, memory)
        if generator is not None and memory is not None:
            self._memory[f"{group.name}.actor"] = memory
        policy = group.distribution(parameters, step.action_mask)
        action = policy.mode()
        return Decision({}, action, policy.log_prob(action), torch.zeros_like(step.reward)), parameters

    def forget(self, where: Tensor) -> None:
        """The environments of the [E] mask start new episodes."""
        self._fresh = self._fresh | where
        self._memory = {key: kept.masked_fill(where[:, None, None], 0.0) for key, kept in self._memory.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"fresh": self._fresh, "memory": dict(self._memory)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._fresh = state["fresh"].to(self._fresh.device)
        self._memory = {key: state["memory"][key].to(kept.device) for key, kept in self._memory.items()}
