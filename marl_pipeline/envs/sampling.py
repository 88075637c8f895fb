"""Random play: one allowed action per agent, whatever its action space."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from marl_pipeline.envs.protocol import ActionSpace, Continuous, Discrete, GroupSpec, Timestep


def random_actions(
    groups: Mapping[str, GroupSpec], timestep: Timestep, generator: torch.Generator
) -> dict[str, Tensor]:
    """[E, A, *shape] by group, uniform over what is allowed; equal on every device, as `generator` is the CPU's."""
    return {
        name: random_action(spec.actions, timestep.groups[name].action_mask, generator) for name, spec in groups.items()
    }


def random_action(space: ActionSpace, mask: Tensor, generator: torch.Generator) -> Tensor:
    """[E, A, *shape] for the mask [E, A, space.mask_width]; the choices of a `MultiDiscrete` are independent."""
    if isinstance(space, Continuous):
        drawn = torch.rand(*mask.shape[:-1], space.size, generator=generator)
        return (space.low + (space.high - space.low) * drawn).to(mask.device)
    if isinstance(space, Discrete):
        return _choice(mask, generator)
    return torch.stack([_choice(part, generator) for part in torch.split(mask, list(space.sizes), dim=-1)], dim=-1)


def _choice(mask: Tensor, generator: torch.Generator) -> Tensor:
    """[E, A] the index of one True of each row."""
    weights = mask.float().cpu()
    drawn = torch.multinomial(weights.flatten(0, -2), 1, generator=generator)
    return drawn.view(weights.shape[:-1]).to(mask.device)


class RandomPolicy:
    """Random play as a policy of `algos.algorithm`, greedy or not: what every learner must beat."""

    module = nn.Module()

    def __init__(self, groups: Mapping[str, GroupSpec], seed: int) -> None:
        self._groups, self._generator = groups, torch.Generator().manual_seed(seed)

    def start(self, num_envs: int) -> dict[str, Tensor]:
        return {}

    def act(
        self, timestep: Timestep, memory: dict[str, Tensor], generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return random_actions(self._groups, timestep, generator or self._generator), {}
