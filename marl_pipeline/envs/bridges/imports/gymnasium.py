"""Gymnasium's environments by id: one group, `agent`, of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import torch
from gymnasium.envs.registration import load_env_creator
from gymnasium.error import DependencyNotInstalled, UnregisteredEnv

from marl_pipeline.envs.bridges.imports.answers import unpack
from marl_pipeline.envs.bridges.imports.environment import OutsideEnvironment
from marl_pipeline.envs.bridges.imports.spaces import ACTION_MASK
from marl_pipeline.envs.lookup import check_options, import_module
from marl_pipeline.errors import UserError

AGENT = "agent"


class OneAgent:
    """A single-agent environment as a `ParallelWorld` of one.

    A method `action_masks()`, by which Stable-Baselines3's MaskablePPO asks, is asked after every step and reset.
    """

    possible_agents = (AGENT,)

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self._env = env
        self.agents: tuple[str, ...] = ()
        self._masked = isinstance(env, gymnasium.Env) and env.has_wrapper_attr("action_masks")

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        return self._env.observation_space

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        return self._env.action_space

    def reset(self, seed: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        observation, info = unpack(self._env.reset(seed=seed), ("observation", "info"), "reset")
        self.agents = (AGENT,)
        return {AGENT: observation}, {AGENT: self._with_mask(info)}

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, bool], dict[str, bool], dict[str, Any]]:
        names = ("observation", "reward", "terminated", "truncated", "info")
        observation, reward, terminated, truncated, info = unpack(self._env.step(actions[AGENT]), names, "step")
        if terminated or truncated:
            self.agents = ()
        info = self._with_mask(info)
        return {AGENT: observation}, {AGENT: reward}, {AGENT: terminated}, {AGENT: truncated}, {AGENT: info}

    def close(self) -> None:
        self._env.close()  # type: ignore[no-untyped-call]

    def _with_mask(self, info: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self._masked:
            return info
        return {**info, ACTION_MASK: self._env.get_wrapper_attr("action_masks")()}


def gymnasium_environment(
    name: str, identity: str, num_envs: int, *, seed: int, device: torch.device | str, **options: Any
) -> OutsideEnvironment:
    """Environments of `gymnasium.make(identity, **options)`; `name` is for messages. `<module>:<id>` imports the module
    that registers the id first.

    Raises:
        UserError: the id or an option is unknown, or what the environment needs is not installed.
    """
    module, _, plain = identity.rpartition(":")
    if module:
        import_module(name, module)
    try:
        entry = gymnasium.spec(plain).entry_point
        creator = load_env_creator(entry) if isinstance(entry, str) else entry
        if creator is not None:
            check_options(name, creator, {key: value for key, value in options.items() if key not in OF_MAKE})
        return OutsideEnvironment(num_envs, lambda: one_agent(plain, options), name=name, seed=seed, device=device)
    except (UnregisteredEnv, DependencyNotInstalled) as error:
        raise UserError(f"environment '{name}': {error}") from error


def one_agent(identity: str, options: Mapping[str, Any]) -> OneAgent:
    """One without Gymnasium's checker, which warns at every start; `check_environment` is ours."""
    return OneAgent(gymnasium.make(identity, disable_env_checker=True, **options))


OF_MAKE = ("max_episode_steps",)
"""Options that `gymnasium.make` takes itself, whatever the environment."""
