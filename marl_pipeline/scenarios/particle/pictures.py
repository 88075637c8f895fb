"""Where the agents of cooperative navigation went, where the landmarks are, and what the team earned on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from marl_pipeline.algos.common.episodes import EpisodeStep
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.scenarios.picture import EpisodePicture, Line, Marker, Panel, Recorded


def trajectories(agents: int) -> EpisodePicture:
    """A map of one episode of `agents` agents, and the return so far."""

    def record(step: EpisodeStep) -> Mapping[str, Tensor]:
        seen = step.after.groups["agents"].observation["seen"][:, 0]
        landmarks = seen[:, 4 : 4 + 2 * agents].view(-1, agents, 2) + seen[:, None, 2:4]
        return {"from": _positions(step.before), "to": _positions(step.after), "landmarks": landmarks}

    return EpisodePicture(record, _panels, across=True)


def _positions(timestep: Timestep) -> Tensor:
    return timestep.groups["agents"].observation["seen"][..., 2:4]


def _panels(episode: Recorded) -> list[Panel]:
    paths = np.concatenate([episode["from"][:1], episode["to"]])
    landmarks = episode["landmarks"][-1]
    lines = [Line(path[:, 0], path[:, 1], f"agent {agent}", agent) for agent, path in enumerate(paths.swapaxes(0, 1))]
    marked: dict[Marker, NDArray[Any]] = {"start": paths[0], "end": paths[-1], "landmark": landmarks}
    lines += [Line(at[:, 0], at[:, 1], name, "grey", marker=name) for name, at in marked.items()]
    earned = np.cumsum(episode["team_reward"], dtype=np.float64)
    total = Line(np.arange(len(earned) + 1), np.append(0.0, earned), colour="grey")
    return [
        Panel("where the agents went", "x, world units", "y, world units", lines, square=True),
        Panel("return so far", "step", "sum of the team's rewards", [total]),
    ]
