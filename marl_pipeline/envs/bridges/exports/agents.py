"""One environment by the names of its agents: what PettingZoo and RLlib step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from numpy.typing import NDArray

from marl_pipeline.envs.bridges.exports.features import Features, MakeEnvironment
from marl_pipeline.envs.bridges.exports.spaces import ObservationFormat, action_space
from marl_pipeline.envs.protocol import close_environment


@dataclass(frozen=True)
class AgentView:
    """What one agent observes.

    Attributes:
        row: [F] float32 features.
        mask: [mask_width] bool.
        acts: the next step uses its action.
        gone: its future ended.
        left: it was truncated while the others go on.
    """

    row: NDArray[np.float32]
    mask: NDArray[np.bool_]
    acts: bool
    reward: float
    gone: bool
    left: bool


class NamedAgents:
    """Agents are called `<group>_<index>`, in the order of the groups.

    Attributes:
        names: all of them.
        observation_spaces, action_spaces: by name, in Gymnasium's words.

    Args:
        make: builds the environment, with num_envs 1, for a seed.
        observation_format: how the library wants rows and masks.
        features: observation of an agent as one row of floats.

    Raises:
        ValueError: there is more than one environment.
    """

    def __init__(
        self, make: MakeEnvironment, observation_format: ObservationFormat, *, features: Features, seed: int
    ) -> None:
        self._make, self._format, self._features = make, observation_format, features
        self._environment = make(seed)
        if self._environment.num_envs != 1:
            self.close()
            raise ValueError(f"one environment is shown by name, here are {self._environment.num_envs}")
        self._place = {
            f"{group}_{index}": (group, index)
            for group, spec in self._environment.groups.items()
            for index in range(spec.agents)
        }
        self.names = tuple(self._place)
        self._actions = {name: self._environment.groups[group].actions for name, (group, _) in self._place.items()}
        self.action_spaces: dict[str, Space[Any]] = {name: action_space(known) for name, known in self._actions.items()}
        self.state_size = self._environment.state_size
        self.observation_spaces: dict[str, Space[Any]] = {
            name: observation_format.space(len(view.row), self._actions[name]) for name, view in self.reset().items()
        }

    def reset(self, seed: int | None = None) -> dict[str, AgentView]:
        if seed is not None:
            self.close()
            self._environment = self._make(seed)
        self._timestep = self._environment.reset()
        return self._views()

    def step(self, actions: Mapping[str, Any]) -> dict[str, AgentView]:
        """Plays the given actions; an agent without one plays 0, which counts only if it acts.

        Raises:
            ValueError: the action of an agent that acts is missing, has the wrong shape, or is given to an unknown
                agent.
        """
        unknown = sorted(set(actions) - set(self._place))
        missing = sorted(name for name in self._acting() if name not in actions)
        if unknown or missing:
            raise ValueError(f"actions must name the agents that act (missing: {missing}, unknown: {unknown})")
        chosen = {
            group: torch.zeros(1, spec.agents, *spec.actions.shape, dtype=spec.actions.dtype)
            for group, spec in self._environment.groups.items()
        }
        for name, action in actions.items():
            group, index = self._place[name]
            given = torch.as_tensor(action, dtype=chosen[group].dtype)
            if given.shape != chosen[group].shape[2:]:
                wanted = list(chosen[group].shape[2:])
                raise ValueError(f"the action of {name} must have shape {wanted}, found {list(given.shape)}")
            chosen[group][0, index] = given
        device = self._environment.device
        self._timestep = self._environment.step({group: action.to(device) for group, action in chosen.items()})
        return self._views()

    def observations(self, views: Mapping[str, AgentView], names: Iterable[str]) -> dict[str, Any]:
        """The observations of those agents as the library wants them."""
        return {
            name: self._format.observation(views[name].row, views[name].mask, self._actions[name]) for name in names
        }

    def close(self) -> None:
        """Closes the environment."""
        close_environment(self._environment)

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
            left = step.agents_truncated()[0].tolist()
            for index in range(len(rows)):
                views[f"{group}_{index}"] = AgentView(
                    row=np.array(rows[index], dtype=np.float32),
                    mask=np.array(mask[index], dtype=np.bool_),
                    acts=bool(acts[index]),
                    reward=float(reward[index]),
                    gone=discount[index] == 0.0,
                    left=bool(left[index]),
                )
        return views
