"""The payoff tables of a game, with the joint actions that the greedy policy played in every state."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from marl_pipeline.algos.common.episodes import EpisodeStep
from marl_pipeline.envs.matrix.game import TabularGame
from marl_pipeline.scenarios.picture import EpisodePicture, Panel, Recorded, Table


def payoffs(game: TabularGame) -> EpisodePicture:
    """A table for every state: rows are actions of the first agent, columns those of the second."""
    values, best = game.payoff.cpu().numpy(), game.best.cpu().numpy()

    def panels(episode: Recorded) -> list[Panel]:
        played = np.zeros(values.shape)
        np.add.at(played, (episode["state"], *episode["actions"].T), 1.0)
        shown = []
        for state, table in enumerate(values):
            visits = int(played[state].sum())
            times = "not reached" if not visits else "1 step" if visits == 1 else f"{visits} steps"
            title = times if len(values) == 1 else f"state {state}: {times}"
            shares = played[state] / max(visits, 1)
            names = ("action of the second agent", "action of the first agent")
            shown.append(Panel(title, *names, Table(table, shares, best[state])))
        return shown

    return EpisodePicture(_record, panels, across=True)


def _record(step: EpisodeStep) -> Mapping[str, Tensor]:
    return {"state": step.before.state.argmax(-1), "actions": step.actions["agents"]}
