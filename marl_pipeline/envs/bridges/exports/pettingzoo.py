"""Presents one environment of the protocol as a PettingZoo `ParallelEnv`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import Space
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from marl_pipeline.envs.bridges.exports.agents import AgentView, NamedAgents
from marl_pipeline.envs.bridges.exports.features import Features, MakeEnvironment, dense_fields
from marl_pipeline.envs.bridges.exports.spaces import ObservationFormat, row_space

WORDING = ObservationFormat("observation", np.int8, by_choice=True)


class PettingZooParallelEnv(ParallelEnv):  # type: ignore[misc]
    """Agents `<group>_<index>`; observation `{"observation": [F] float32, "action_mask": [actions] int8}`, the masks of
    several choices as a tuple; for continuous actions, which are never masked, the row alone.

    All living agents are asked at every step; `infos[agent]["acts"]` says whose action counts (a master between two
    decisions is asked in vain). An agent whose future ends is terminated and leaves, one that is truncated alone
    leaves too; the rest go on.

    Args:
        make: builds the environment, with num_envs 1, for a seed.
        features: observation of an agent as one row of floats.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "marl_pipeline_v0", "render_modes": [], "is_parallelizable": True}
    render_mode: str | None = None

    def __init__(self, make: MakeEnvironment, *, features: Features = dense_fields, seed: int = 0) -> None:
        self._agents = NamedAgents(make, WORDING, features=features, seed=seed)
        self.possible_agents = list(self._agents.names)
        self.agents: list[str] = []
        self.action_spaces = self._agents.action_spaces
        self.observation_spaces = self._agents.observation_spaces
        self.state_space = row_space(self._agents.state_size)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Starts an episode with all agents; `options` has none to offer."""
        views = self._agents.reset(seed)
        self.agents = list(self.possible_agents)
        return self._agents.observations(views, self.agents), self._infos(views, self.agents)

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        present = self.agents
        views = self._agents.step(actions)
        all_terminated, all_truncated = self._agents.terminated, self._agents.truncated
        terminated = {name: all_terminated or views[name].gone for name in present}
        truncated = {name: (all_truncated or views[name].left) and not terminated[name] for name in present}
        self.agents = [name for name in present if not (terminated[name] or truncated[name])]
        rewards = {name: views[name].reward for name in present}
        return self._agents.observations(views, present), rewards, terminated, truncated, self._infos(views, present)

    def state(self) -> NDArray[np.float32]:
        """[S] what a central critic may see."""
        return self._agents.state

    def observation_space(self, agent: str) -> Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Space[Any]:
        return self.action_spaces[agent]

    def render(self) -> None:
        """There is nothing to see but the figures."""

    def close(self) -> None:
        """Closes the environment."""
        self._agents.close()

    @staticmethod
    def _infos(views: Mapping[str, AgentView], names: list[str]) -> dict[str, dict[str, Any]]:
        return {name: {"acts": views[name].acts} for name in names}
