"""Presents one environment of the protocol as an RLlib `MultiAgentEnv`: agents are asked on their own clocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Dict
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from marl_pipeline.envs.bridges.exports.agents import NamedAgents
from marl_pipeline.envs.bridges.exports.features import Features, MakeEnvironment, dense_fields
from marl_pipeline.envs.bridges.exports.spaces import ObservationFormat

WORDING = ObservationFormat("observations", np.float32, by_choice=False)

ALL = "__all__"
"""RLlib's name for the episode as a whole."""


class RLlibMultiAgentEnv(MultiAgentEnv):  # type: ignore[misc]
    """Agents `<group>_<index>`; observation `{"observations": [F], "action_mask": [actions]}`, float32 each, as RLlib's
    `ActionMaskingRLModule` reads them, the masks of several choices side by side; for continuous actions, which are
    never masked, the row alone.

    Only agents that decide next are shown an observation (a master every few steps); the rewards in between are given
    as they come. When the episode ends, all that have decided see the last state.

    Args:
        make: builds the environment, with num_envs 1, for a seed.
        features: observation of an agent as one row of floats.
    """

    def __init__(self, make: MakeEnvironment, *, features: Features = dense_fields, seed: int = 0) -> None:
        super().__init__()
        self._named = NamedAgents(make, WORDING, features=features, seed=seed)
        self.possible_agents = list(self._named.names)
        self.agents = list(self._named.names)
        self.action_spaces = self._named.action_spaces
        self.observation_spaces = self._named.observation_spaces
        self.observation_space = Dict(self.observation_spaces)
        self.action_space = Dict(self.action_spaces)
        self._present: set[str] = set()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        views = self._named.reset(seed)
        asked = [name for name, view in views.items() if view.acts]
        self._present = set(asked)
        return self._named.observations(views, asked), {name: {} for name in asked}

    def step(
        self, action_dict: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        views = self._named.step(action_dict)
        over, all_truncated = self._named.terminated, self._named.truncated
        joining = {name for name, view in views.items() if view.acts}
        present = [name for name in views if name in self._present or name in joining]
        gone = {name for name in present if views[name].gone}
        left = {name for name in present if views[name].left} - gone
        asked = [name for name in present if over or all_truncated or name in gone | left or views[name].acts]
        terminated = {name: over or name in gone for name in asked} | {ALL: over}
        # with every agent marked, RLlib takes the end of an episode for a termination (`MultiAgentEpisode`, case 2)
        truncated = {name: name in left for name in asked} | {ALL: all_truncated}
        rewards = {name: views[name].reward for name in present}
        self._present = set(present) - gone - left
        return self._named.observations(views, asked), rewards, terminated, truncated, {name: {} for name in asked}

    def close(self) -> None:
        """Closes the environment."""
        self._named.close()
