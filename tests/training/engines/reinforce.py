"""A small learner for the engines: REINFORCE with linear policies on every group of an environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from marl_pipeline.algos.common.algorithm import Iteration, Memory
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.config import Section
from marl_pipeline.envs.protocol import Environment, Timestep, discrete_actions
from marl_pipeline.nn.distributions import masked_log_softmax, sample
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction
from marl_pipeline.seeding import stream, stream_seed


class ReinforceSettings(Section):
    learning_rate: float
    horizon: int


class LinearPolicy:
    def __init__(self, environment: Environment, inputs: Inputs, seed: int) -> None:
        self.inputs = inputs
        generator = stream(seed, "weights")
        layers = {
            name: nn.Linear(inputs.width(name), discrete_actions(spec)) for name, spec in environment.groups.items()
        }
        for layer in layers.values():
            nn.init.normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        self.module = nn.ModuleDict(layers)

    def start(self, num_envs: int) -> Memory:
        return {}

    def log_probs(self, timestep: Timestep) -> dict[str, Tensor]:
        return {
            name: masked_log_softmax(self.module[name](self.inputs(name, step.observation)), step.action_mask)
            for name, step in timestep.groups.items()
        }

    def act(self, timestep: Timestep, memory: Memory, generator: torch.Generator | None) -> Any:
        with torch.no_grad():
            return {name: sample(logits, generator) for name, logits in self.log_probs(timestep).items()}, memory


class Reinforce:
    """Pays every action the reward of its step: enough to learn `tests.algos.toy.Colours`."""

    def __init__(
        self,
        environment: Environment,
        inputs: Inputs,
        settings: ReinforceSettings,
        *,
        seed: int,
        timesteps: int,
        reduction: Reduction = NO_REDUCTION,
    ) -> None:
        self.environment, self.settings, self.reduction = environment, settings, reduction
        self.policy = LinearPolicy(environment, inputs, seed)
        self.optimizer = torch.optim.Adam(self.policy.module.parameters(), lr=settings.learning_rate)
        self.generator = torch.Generator().manual_seed(stream_seed(reduction.own_seed(seed), "explore"))
        self.timestep = environment.reset()

    def iterate(self) -> Iteration:
        losses, rows = [], []
        for _ in range(self.settings.horizon):
            log_probs = self.policy.log_probs(self.timestep)
            actions = {name: sample(table.detach(), self.generator) for name, table in log_probs.items()}
            before, self.timestep = self.timestep, self.environment.step(actions)
            for name, step in before.groups.items():
                chosen = log_probs[name].gather(-1, actions[name].unsqueeze(-1)).squeeze(-1)
                live = step.acts.float()
                losses.append(-(chosen * (self.timestep.groups[name].reward - 0.3) * live).sum())
                rows.append(live.sum())
            if bool(self.timestep.done.any()):
                self.timestep = self.environment.reset(self.timestep.done)
        count = torch.stack(rows).sum()
        self.optimizer.zero_grad()
        loss = torch.stack(losses).sum() / count
        loss.backward()
        self.reduction.average_gradients(self.policy.module.parameters(), count)
        self.optimizer.step()
        return Iteration(self.settings.horizon * self.environment.num_envs, {"loss": float(loss.detach())})

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.policy.module.state_dict().items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.policy.module.load_state_dict(dict(weights))

    def state_dict(self) -> dict[str, Any]:
        return {
            "module": self.policy.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "environment": self.environment.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.policy.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.environment.load_state_dict(state["environment"])
        self.timestep = self.environment.reset(torch.zeros(self.environment.num_envs, dtype=torch.bool))
