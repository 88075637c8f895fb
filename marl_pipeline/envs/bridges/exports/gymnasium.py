"""Any environment of the protocol as a Gymnasium `VectorEnv`: one sub-environment per agent of one group and
environment."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from marl_pipeline.envs.bridges.exports.features import MakeEnvironment
from marl_pipeline.envs.bridges.exports.rows import BoolRows, FloatRows, Rows, RowStep, Shown

Numbers = NDArray[Any]


class GymnasiumVectorEnv(VectorEnv[FloatRows, Numbers, Numbers]):
    """Resets an environment in the step in which it ends: `infos["final_obs"]` holds the last observation.

    `infos["action_mask"]` ([R, mask_width] int8, as `Discrete.sample` takes it; missing for continuous actions) says
    what may be chosen next and `infos["acts"]` whose action will be used; `action_masks()` is the same as bool. A seed
    given to `reset` builds the environment anew.

    Args:
        make: builds the environment for a seed.
        shown: see `Shown`.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012 (as the base class declares it)

    def __init__(self, make: MakeEnvironment, **shown: Unpack[Shown]) -> None:
        self.closed = True  # what holds nothing yet is not closed by `__del__`
        self._rows = Rows(make, **shown)
        self.closed = False
        self.num_envs = self._rows.count
        self.single_observation_space = self._rows.observation_space
        self.single_action_space = self._rows.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatRows, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return self._rows.reset(seed), self._infos(self._rows.acts())

    def step(self, actions: Numbers) -> tuple[FloatRows, Numbers, Numbers, Numbers, dict[str, Any]]:
        step = self._rows.step(actions)
        infos = self._infos(step.acts)
        if (step.terminated | step.truncated).any():
            infos |= self._final(step)
        return step.observation, step.reward.astype(np.float64), step.terminated, step.truncated, infos

    def action_masks(self) -> BoolRows:
        """[R, mask_width] bool."""
        return self._rows.action_masks()

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environment; Gymnasium's `close` calls it."""
        self._rows.close()

    def _infos(self, acts: BoolRows) -> dict[str, Any]:
        everyone = np.ones(self.num_envs, dtype=np.bool_)
        infos: dict[str, Any] = {"acts": acts, "_acts": everyone}
        masks = self._rows.action_masks().astype(np.int8)
        return infos | {"action_mask": masks, "_action_mask": everyone} if masks.shape[1] else infos

    def _final(self, step: RowStep) -> dict[str, Any]:
        done = step.terminated | step.truncated
        final = np.full(self.num_envs, None, dtype=object)
        for row in np.flatnonzero(done):
            final[row] = step.final[row]
        return {"final_obs": final, "_final_obs": done, "final_info": {}, "_final_info": done}
