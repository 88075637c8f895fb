"""Actors that decide on what their agent sees itself: deterministic on ranges, a Gumbel-softmax on choices."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from marl_pipeline.algos.common.action_codes import Ranges, action_code
from marl_pipeline.algos.common.algorithm import Memory
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.algos.common.noise import Noise
from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.nn.mlp import MLP
from marl_pipeline.nn.settings import NetworkSettings


class DecentralisedActors:
    """Implements `algos.algorithm.Policy`: one deterministic or Gumbel-softmax actor per agent.

    `noise_scale` and `random_share` are the exploration of the moment; the learner sets them as training goes on.
    The memory [E, A, 2 * width] is the code of the active action and the exploration noise that led to it.
    """

    def __init__(
        self,
        environment: Environment,
        inputs: Inputs,
        *,
        network: NetworkSettings,
        temperature: float,
        noise: Noise,
        generator: torch.Generator,
    ) -> None:
        self._specs, self._inputs, self._noise = environment.groups, inputs, noise
        self._device = environment.device
        self.codes = {name: action_code(spec.actions, temperature=temperature) for name, spec in self._specs.items()}
        self.module = nn.ModuleDict(
            {
                name: MLP(
                    inputs.width(name),
                    self.codes[name].width,
                    network,
                    agents=spec.agents,
                    output_scale=0.1,
                    generator=generator,
                )
                for name, spec in self._specs.items()
            }
        ).to(self._device)
        self.noise_scale = noise.scale.start
        self.random_share = 0.0

    def start(self, num_envs: int) -> Memory:
        """No active choice (code 0), and no noise."""
        return {
            name: torch.zeros(num_envs, spec.agents, 2 * self.codes[name].width, device=self._device)
            for name, spec in self._specs.items()
        }

    @torch.no_grad()
    def act(
        self, timestep: Timestep, memory: Memory, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Memory]:
        """See `Policy`. The action of an agent that waits for its clock is the one it decided last."""
        actions, remembered = {}, {}
        for name, step in timestep.groups.items():
            raw = self.raw(name, self.rows(name, step.observation, step.present))
            active, noise = memory[name].chunk(2, dim=-1)
            if generator is None:
                chosen = self.codes[name].sample(raw, step.action_mask, torch.zeros_like(raw))
            else:
                chosen, noise = self._explore(name, raw, step.action_mask, noise, generator)
            active = torch.where(step.acts.unsqueeze(-1), chosen, active)
            actions[name] = self.codes[name].decode(active)
            remembered[name] = torch.cat([active, noise], dim=-1)
        return actions, remembered

    def _explore(
        self, group: str, raw: Tensor, mask: Tensor, before: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The code of an action drawn from the actor or, for a `random_share` of the agents, from all allowed ones.

        And the noise it took, which follows that of the step `before`.
        """
        code, device = self.codes[group], raw.device
        noise = code.noise(raw.shape, generator, device)
        if isinstance(code, Ranges):
            noise = self._noise.after(before, noise)
            chosen = code.sample(raw, mask, self.noise_scale * noise)
        else:
            chosen = code.sample(raw, mask, noise)
        random = torch.rand(raw.shape[:-1], generator=generator, device=device) < self.random_share
        uniform = code.uniform(mask, code.noise(raw.shape, generator, device))
        return torch.where(random.unsqueeze(-1), uniform, chosen), noise

    def rows(self, group: str, observation: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """[B, A, inputs], zeros for the absent, whose observation means nothing."""
        return torch.where(present.unsqueeze(-1), self._inputs(group, observation), 0.0)

    def raw(self, group: str, rows: Tensor) -> Tensor:
        """The actors' outputs [B, A, width] before they are an action."""
        outputs: Tensor = self.module[group](rows)
        return outputs
