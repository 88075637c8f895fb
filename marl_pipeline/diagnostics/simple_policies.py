"""Policies that learn nothing, to test the simulator and to see what a reward pays."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from marl_pipeline.algos.common.episodes import Memoryless
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.envs.trading.core.actions import Action

PolicyName = Literal["random", "hold", "buy_and_hold"]


def policy_of(name: PolicyName, seed: int, device: torch.device) -> Memoryless:
    """Returns the policy called `name`, the same for every group; a master that does not act at random allows the most.

    `random` draws evenly among the allowed actions; `hold` never trades; `buy_and_hold` buys as much as it may, once.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def at_random(timestep: Timestep) -> dict[str, Tensor]:
        actions = {}
        for group, step in timestep.groups.items():
            weights = step.action_mask.flatten(0, 1).float()
            drawn = torch.multinomial(weights, 1, generator=generator)
            actions[group] = drawn.view(step.action_mask.shape[:2])
        return actions

    def constant(timestep: Timestep) -> dict[str, Tensor]:
        actions = {
            group: torch.full_like(step.acts, step.action_mask.shape[-1] - 1, dtype=torch.int64)
            for group, step in timestep.groups.items()
        }
        symbols = timestep.groups["symbols"]
        buys = symbols.action_mask[..., int(Action.BUY_LARGE)] & (symbols.observation["position"][..., 0] == 0.0)
        actions["symbols"] = buys.long() * int(Action.BUY_LARGE) * (name == "buy_and_hold")
        return actions

    return Memoryless(at_random if name == "random" else constant)
