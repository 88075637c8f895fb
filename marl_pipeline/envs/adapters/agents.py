"""One copy of an environment by the names of its agents: what PettingZoo and RLlib step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from marl_pipeline.envs.adapters.features import Features, MakeEnvironment, dense_fields
from marl_pipeline.envs.protocol import discrete_actions


@dataclass(frozen=True)
class AgentView:
    """What one agent is told.

    Attributes:
        row: [F] float32 features.
        mask: [actions] bool.
        acts: the next step uses its action.
        gone: its future ended.
    """

    row: NDArray[np.float32]
    mask: NDArray[np.bool_]
    acts: bool
    reward: float
    gone: bool


class NamedAgents:
    """Agents are called `<group>_<index>`, in the order of the groups.

    Attributes:
        names: all of them.
        width, actions: F and the number of actions by name.

    Raises:
        ValueError: the environment has more than one copy.
    """

    def __init__(self, make: MakeEnvironment, *, features: Features = dense_fields, seed: int = 0) -> None:
        self._make, self._features = make, features
        self._environment = make(seed)
        if self._environment.num_envs != 1:
            raise ValueError(f"one copy is shown by name; the environment has {self._environment.num_envs}")
        self._place = {
            f"{group}_{index}": (group, index)
            for group, spec in self._environment.groups.items()
            for index in range(spec.agents)
        }
        self.names = tuple(self._place)
        self.actions = {
            name: discrete_actions(self._environment.groups[group]) for name, (group, _) in self._place.items()
        }
        self.state_size = self._environment.state_size
        self.width = {name: len(view.row) for name, view in self.reset().items()}

    def reset(self, seed: int | None = None) -> dict[str, AgentView]:
        if seed is not None:
            self._environment = self._make(seed)
        self._timestep = self._environment.reset()
        return self._views()

    def step(self, actions: Mapping[str, Any]) -> dict[str, AgentView]:
        """Plays the given actions; an agent without one plays 0, which counts only if it acts.

        Raises:
            ValueError: the action of an agent that acts is missing, or one is given to an unknown agent.
        """
        unknown = sorted(set(actions) - set(self._place))
        missing = sorted(name for name in self._acting() if name not in actions)
        if unknown or missing:
            raise ValueError(f"actions must name the agents that act (missing: {missing}, unknown: {unknown})")
        chosen = {
            group: torch.zeros(1, spec.agents, dtype=torch.int64) for group, spec in self._environment.groups.items()
        }
        for name, action in actions.items():
            group, index = self._place[name]
            chosen[group][0, index] = int(action)
        device = self._environment.device
        self._timestep = self._environment.step({group: action.to(device) for group, action in chosen.items()})
        return self._views()

    @property
    def terminated(self) -> bool:
        return bool(self._timestep.terminated[0])

    @property
    def truncated(self) -> bool:
        return bool(self._timestep.truncated[0])

    @property
    def state(self) -> NDArray[np.float32]:
        """[S] the global state, for central critics."""
        return np.array(self._timestep.state[0].cpu().numpy(), dtype=np.float32)

    def _acting(self) -> list[str]:
        acts = {group: step.acts[0].tolist() for group, step in self._timestep.groups.items()}
        return [name for name, (group, index) in self._place.items() if acts[group][index]]

    def _views(self) -> dict[str, AgentView]:
        views: dict[str, AgentView] = {}
        for group, step in self._timestep.groups.items():
            rows = self._features(group, step)[0].cpu().numpy()
            mask, acts = step.action_mask[0].cpu().numpy(), step.acts[0].tolist()
            reward, discount = step.reward[0].tolist(), step.discount[0].tolist()
            for index in range(len(rows)):
                views[f"{group}_{index}"] = AgentView(
                    row=np.array(rows[index], dtype=np.float32),
                    mask=np.array(mask[index], dtype=np.bool_),
                    acts=bool(acts[index]),
                    reward=float(reward[index]),
                    gone=discount[index] == 0.0,
                )
        return views
