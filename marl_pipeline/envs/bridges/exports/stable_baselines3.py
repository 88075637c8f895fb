"""Any environment of the protocol as a Stable-Baselines3 `VecEnv`, with the masks that `MaskablePPO` asks for."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
from gymnasium import Wrapper
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from marl_pipeline.envs.bridges.exports.features import MakeEnvironment
from marl_pipeline.envs.bridges.exports.rows import BoolRows, FloatRows, Rows, Shown


class StableBaselines3VecEnv(VecEnv):
    """One sub-environment per agent of one group and environment; R of them.

    An environment is reset in the step in which it ends (`terminal_observation`, `TimeLimit.truncated` in its infos).
    A row whose agent dies or is truncated before is done at that step and not once more when the others are. What an
    agent earned and how many steps it was there is in `infos[r]["episode"]` when it is done (`r` and `l`, as a Monitor
    gives them; a `VecMonitor` counts the steps of rows that stand still as well). `infos[r]["acts"]` tells whether the
    next action of row r will be used. `seed` takes effect at the next reset, which builds the environment anew for it.

    Args:
        make: builds the environment for a seed.
        shown: see `Shown`.
    """

    render_mode: str | None = None

    def __init__(self, make: MakeEnvironment, **shown: Unpack[Shown]) -> None:
        self._rows = Rows(make, **shown)
        self._actions = np.zeros(self._rows.count)
        self._returns, self._lengths = np.zeros(self._rows.count), np.zeros(self._rows.count, dtype=np.int64)
        super().__init__(self._rows.count, self._rows.observation_space, self._rows.action_space)

    def reset(self) -> FloatRows:
        observation = self._rows.reset(self._seeds[0])
        self._returns[:], self._lengths[:] = 0.0, 0
        self.reset_infos = self._infos(self._rows.acts())
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        step = self._rows.step(self._actions)
        infos, done = self._infos(step.acts), step.terminated | step.truncated
        self._returns += step.reward
        self._lengths += step.present
        for row in np.flatnonzero(done):
            infos[row]["terminal_observation"] = step.final[row]
            infos[row]["TimeLimit.truncated"] = bool(step.truncated[row])
            infos[row]["episode"] = {"r": float(self._returns[row]), "l": int(self._lengths[row])}
        self._returns[done], self._lengths[done] = 0.0, 0
        return step.observation, step.reward, done, infos

    def action_masks(self) -> BoolRows:
        """[R, mask_width] bool, what may be chosen now."""
        return self._rows.action_masks()

    def acts(self) -> BoolRows:
        """[R] bool, whose action the next step uses."""
        return self._rows.acts()

    def close(self) -> None:
        """Closes the environment."""
        self._rows.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        raise AttributeError(f"the rows of one batched environment share '{attr_name}'; build another environment")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """`action_masks` is the one method of a row.

        Raises:
            AttributeError: any other.
        """
        if method_name != "action_masks":
            raise AttributeError(f"a row has no method '{method_name}' (known: action_masks)")
        masks = self.action_masks()
        return [masks[row] for row in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Wrapper], indices: VecEnvIndices = None) -> list[bool]:  # type: ignore[type-arg]
        return [False for _ in self._get_indices(indices)]

    def _infos(self, acts: BoolRows) -> list[dict[str, Any]]:
        return [{"acts": bool(decides)} for decides in acts]
