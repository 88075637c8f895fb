"""Any environment of the protocol as a Gymnasium `VectorEnv`: one sub-environment per agent of one group and copy."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from marl_pipeline.envs.adapters.features import Features, MakeEnvironment, dense_fields
from marl_pipeline.envs.adapters.rows import BoolRows, FloatRows, Others, Rows, RowStep

Numbers = NDArray[Any]


class GymnasiumVectorEnv(VectorEnv[FloatRows, NDArray[np.int64], Numbers]):
    """Resets a copy in the step in which it ends: `infos["final_obs"]` holds the last observation.

    `infos["action_mask"]` ([R, actions] int8, as `Discrete.sample` takes it) says what may be chosen next and
    `infos["acts"]` whose action will be used; `action_masks()` is the same as bool. A seed given to `reset` builds the
    environment anew.

    Args:
        make, group, others, features, seed: see `Rows`.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012 (as the base class declares it)

    def __init__(
        self,
        make: MakeEnvironment,
        *,
        group: str | None = None,
        others: Others | None = None,
        features: Features = dense_fields,
        seed: int = 0,
    ) -> None:
        self._rows = Rows(make, group=group, others=others, features=features, seed=seed)
        self.num_envs = self._rows.count
        self.single_observation_space = Box(-np.inf, np.inf, (self._rows.width,), np.float32)
        self.single_action_space = Discrete(self._rows.actions)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatRows, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return self._rows.reset(seed), self._infos(self._rows.acts())

    def step(self, actions: NDArray[np.int64]) -> tuple[FloatRows, Numbers, Numbers, Numbers, dict[str, Any]]:
        step = self._rows.step(actions)
        infos = self._infos(step.acts)
        if (step.terminated | step.truncated).any():
            infos |= self._final(step)
        return step.observation, step.reward.astype(np.float64), step.terminated, step.truncated, infos

    def action_masks(self) -> BoolRows:
        """[R, actions] bool."""
        return self._rows.action_masks()

    def _infos(self, acts: BoolRows) -> dict[str, Any]:
        everyone = np.ones(self.num_envs, dtype=np.bool_)
        masks = self._rows.action_masks().astype(np.int8)
        return {"action_mask": masks, "_action_mask": everyone, "acts": acts, "_acts": everyone}

    def _final(self, step: RowStep) -> dict[str, Any]:
        done = step.terminated | step.truncated
        final = np.full(self.num_envs, None, dtype=object)
        for row in np.flatnonzero(done):
            final[row] = step.final[row]
        return {"final_obs": final, "_final_obs": done, "final_info": {}, "_final_info": done}
