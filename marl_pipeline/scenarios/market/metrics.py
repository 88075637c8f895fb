"""What is measured of an episode of the trading market, in `marl train` and of strategies alike."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from marl_pipeline.envs.episodes import EpisodeMetric

CASH = "share of the initial cash"


def episode_metrics(cash: float) -> dict[str, EpisodeMetric]:
    """Returns figures of an account that starts with `cash`: of the portfolio, or the mean over the symbols' own."""
    return {
        "net_return": EpisodeMetric(lambda info: info["equity"] / cash - 1.0, "last", CASH, "higher"),
        "drawdown": EpisodeMetric("drawdown", "highest", "share of the highest equity before", "lower"),
        "turnover": EpisodeMetric("turnover", "sum", "multiples of equity", None),
        "costs": EpisodeMetric(lambda info: _costs(info) / cash, "sum", CASH, "lower"),
        "trades": EpisodeMetric("executed", "sum", "orders filled", None),
    }


def _costs(info: Mapping[str, Tensor]) -> Tensor:
    return info["commission"] + info["slippage"] + info["borrow"]
