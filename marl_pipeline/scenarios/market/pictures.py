"""What became of the account over one episode: equity beside the benchmark, drawdown, and exposure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from marl_pipeline.algos.common.episodes import EpisodeStep
from marl_pipeline.data.dataset import Dataset, FloatArray
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.scenarios.picture import EpisodePicture, Line, Panel, Recorded

Times = NDArray[np.datetime64]


def account(dataset: Dataset, cash: float, limit: float) -> EpisodePicture:
    """Of accounts that start with `cash` each, and whose kill switch trips at a drawdown of `limit`."""

    def panels(episode: Recorded) -> list[Panel]:
        bars = np.append(episode["from_bar"][0], episode["bar"])
        times = dataset.panel.timestamps[bars]
        equity, gross, drawdown = (
            np.concatenate([np.full_like(episode[name][:1], start), episode[name]]).reshape(len(bars), -1)
            for name, start in (("equity", cash), ("gross", 0.0), ("drawdown", 0.0))
        )
        known = np.isfinite(dataset.benchmark[bars])
        level = dataset.benchmark[bars][known]
        benchmark = Line(times[known], level / level[:1], dataset.benchmark_name, 1, 1.4, dashed=True)
        tripped = Line(times[[0, -1]], [-limit, -limit], "kill switch", "grey", 1.2, dashed=True)
        exposure = np.divide(gross, equity, out=np.zeros_like(equity), where=equity > 0.0)
        named = f"bars {times[0].astype('datetime64[D]')} to {times[-1].astype('datetime64[D]')}"
        return [
            Panel("equity", "", "multiple of the start", [*_accounts(times, equity / cash), benchmark]),
            Panel("drawdown", "", "below the highest equity", [*_accounts(times, -drawdown), tripped], percent=True),
            Panel("exposure", named, "positions, of equity", _accounts(times, exposure)[-1:], percent=True),
        ]

    return EpisodePicture(_record, panels)


def _accounts(times: Times, values: FloatArray) -> list[Line]:
    """The mean over the accounts, and each of them [T, A] if there are several."""
    if values.shape[1] == 1:
        return [Line(times, values[:, 0], "account")]
    each = [Line(times, column, "single accounts", "faint", 0.8) for column in values.T]
    return [*each, Line(times, values.mean(1), "mean of the accounts", width=2.2)]


def _record(step: EpisodeStep) -> Mapping[str, Tensor]:
    figures = {name: step.after.info[name] for name in ("equity", "gross", "drawdown")}
    return {**figures, "from_bar": _bar(step.before), "bar": _bar(step.after)}


def _bar(timestep: Timestep) -> Tensor:
    """[E] the bar that is observed: the same for all agents of all groups."""
    return next(iter(timestep.groups.values())).observation["bar"].flatten(1)[:, 0]
