"""Experience: what the agents did in an environment, by group, ready for a learner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marl_pipeline.algos.common.actors import Actors
from marl_pipeline.envs.protocol import Environment, Timestep


@dataclass(frozen=True)
class Experience:
    """L steps of one group in E environments.

    Attributes:
        inputs: [L, E, ...] each, as in `Decision`.
        action: [L, E, A, *shape].
        log_prob, value, acts, present, reward, discount: [L, E, A].
        action_mask: [L, E, A, mask_width].
        done: [L, E], the episode ended with this transition.
        truncated: [L, E, A], the agent alone was truncated by this transition.
        final_value: [L, E, A], the critic's value of the state in which the episode, or the agent's part in it, ended;
            read only where `done` or `truncated`, and multiplied by a `discount` of 0 where it was terminated.
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
    done: Tensor
    truncated: Tensor
    final_value: Tensor
    last_value: Tensor


class Collector:
    """Steps one environment with the actors of a team and keeps where it is between rollouts."""

    def __init__(self, environment: Environment, actors: Actors, generator: torch.Generator) -> None:
        self.environment = environment
        self.actors = actors
        self.generator = generator
        self._timestep = environment.reset()

    @torch.no_grad()
    def collect(self, steps: int) -> dict[str, Experience]:
        """Runs `steps` steps in every environment; one `Experience` for each group that learns."""
        groups = [name for name in self.environment.groups if name in self.actors.learning]
        records: dict[str, list[dict[str, Tensor]]] = {name: [] for name in groups}
        inputs: dict[str, list[dict[str, Tensor]]] = {name: [] for name in groups}
        for _ in range(steps):
            before = self._timestep
            decisions = self.actors.decide(before, self.generator)
            after = self.environment.step({name: decision.action for name, decision in decisions.items()})
            done = after.done
            any_done = bool(done.any())
            final = self.actors.decide(after, None) if any_done or _any_agent_truncated(after) else None
            for name in groups:
                decision, was, now = decisions[name], before.groups[name], after.groups[name]
                final_value = final[name].value if final is not None else torch.zeros_like(decision.value)
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
                        "done": done,
                        "truncated": now.agents_truncated(),
                        "final_value": final_value,
                    }
                )
            self._timestep = self.environment.reset(done) if any_done else after
            if any_done:
                self.actors.forget(done)
        last = self.actors.decide(self._timestep, None)
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
