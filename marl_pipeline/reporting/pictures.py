"""The report's pictures: equity, drawdown, positions, directives, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from marl_pipeline.data.dataset import FloatArray
from marl_pipeline.evaluation.metrics import drawdown
from marl_pipeline.evaluation.records import MODES, Curve
from marl_pipeline.reporting.canvas import DESK, INK, PHONE, SERIES, SHADE, Picture, dates, line, percent, svg, thin


def equity_picture(
    accounts: Mapping[str, pd.DataFrame], seeds: Mapping[int, pd.DataFrame], windows: pd.DataFrame
) -> Picture:
    """Growth of 1 on a log scale, windows shaded in turn.

    Args:
        accounts: label -> account, the policy first; each gets a colour in this order.
        seeds: the policy's seeds, drawn thin.
        windows: `first` and `last` timestamp of each window.
    """

    def draw(axes: Axes) -> None:
        for account in seeds.values():
            line(axes, account["timestamp"], _growth(account), SERIES[0], width=0.8, alpha=0.45)
        for index, account in reversed(list(enumerate(accounts.values()))):
            line(axes, account["timestamp"], _growth(account), SERIES[index], width=2.4 if index == 0 else 1.4)
        _log_growth(axes, [_growth(account) for account in (*accounts.values(), *seeds.values())])
        _shade(axes, windows)
        dates(axes)

    return Picture(
        "equity",
        "Growth of 1, after all costs",
        "Log scale. Shaded bands are the walk-forward windows; thin lines are the single seeds, the thick line their "
        "mean.",
        svg("equity", PHONE, draw),
        svg("equity-wide", DESK, draw),
        tuple((label, index) for index, label in enumerate(accounts)),
    )


def strategies_picture(accounts: Mapping[str, pd.DataFrame]) -> Picture:
    """Growth of 1 of every strategy, the primary one first, and of equal weight, the last.

    Beyond the colours that can be distinguished the lines are dashed.
    """

    def draw(axes: Axes) -> None:
        last = len(accounts) - 1
        for index, account in reversed(list(enumerate(accounts.values()))):
            colour = INK if index == last else SERIES[index % len(SERIES)]
            dash = (0, (4, 3)) if index == last or index >= len(SERIES) else "-"
            rows = thin(len(account))
            axes.plot(
                account["timestamp"].iloc[rows].to_numpy(),
                _growth(account)[rows],
                color=colour,
                linewidth=2.4 if index == 0 else 1.4,
                linestyle=dash,
            )
        _log_growth(axes, [_growth(account) for account in accounts.values()])
        dates(axes)

    legend = tuple((label, index % len(SERIES)) for index, label in enumerate(list(accounts)[:-1]))
    caption = f"Mean of the seeds of each strategy, after all costs; dashed: {list(accounts)[-1]}. Log scale."
    return Picture("strategies", "Strategies side by side", caption, svg("strategies", PHONE, draw), legend=legend)


def drawdown_picture(accounts: Mapping[str, pd.DataFrame], limit: float) -> Picture:
    """Fall from the peak so far; the policy filled, and the gate as a dashed line."""

    def draw(axes: Axes) -> None:
        for index, account in reversed(list(enumerate(accounts.values()))):
            times, depth = _worst(account["timestamp"], drawdown(account["equity"].to_numpy()))
            if index == 0:
                axes.fill_between(times, -depth, 0.0, color=SERIES[0], alpha=0.25, linewidth=0)
            axes.plot(times, -depth, color=SERIES[index], linewidth=1.8 if index == 0 else 1.2)
        axes.axhline(-limit, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        percent(axes)
        dates(axes)

    legend = tuple((label, index) for index, label in enumerate(accounts))
    caption = f"Fall from the highest value so far. The dashed line is the gate at {100 * limit:.0f}%."
    return Picture("drawdown", "Drawdown", caption, svg("drawdown", PHONE, draw), legend=legend)


def positions_picture(times: pd.Series, weights: pd.DataFrame, what: str) -> Picture:
    """Stacked shares of equity over time.

    Args:
        weights: [T] x groups, at most twelve columns, largest first.
        what: what the columns are ("sector", "symbol").
    """

    def draw(axes: Axes) -> None:
        rows = thin(len(weights))
        layers = [weights.iloc[rows, column].to_numpy() for column in range(weights.shape[1])]
        axes.stackplot(times.iloc[rows].to_numpy(), layers, colors=list(SERIES[: len(layers)]), linewidth=0)
        axes.set_ylim(0.0, max(1.0, float(weights.sum(axis=1).max()) * 1.02))
        percent(axes)
        dates(axes)

    legend = tuple((str(name), index) for index, name in enumerate(weights.columns))
    caption = f"Share of equity by {what}, mean of the seeds; what is missing to 100% is cash."
    return Picture("positions", "Positions over time", caption, svg("positions", PHONE, draw), legend=legend)


def directives_picture(times: pd.Series, exposure: FloatArray, risk: FloatArray, modes: FloatArray) -> Picture:
    """What the master ordered and how much was invested.

    Args:
        exposure, risk: [T] means over the seeds.
        modes: [T, 3] share of the seeds in defensive, neutral and aggressive mode.
    """

    def draw(axes: Axes) -> None:
        figure = axes.figure
        axes.set_position((0.12, 0.42, 0.85, 0.54))
        line(axes, times, risk, SERIES[1], width=1.2)
        line(axes, times, exposure, SERIES[0], width=1.8)
        axes.set_ylim(0.0, max(1.05, float(exposure.max()) * 1.05))
        percent(axes)
        axes.tick_params(labelbottom=False)
        below = figure.add_axes((0.12, 0.12, 0.85, 0.22), sharex=axes)
        rows = thin(len(modes))
        below.stackplot(
            times.iloc[rows].to_numpy(), modes[rows].T, colors=[SERIES[3], SERIES[4], SERIES[2]], linewidth=0
        )
        below.set_ylim(0.0, 1.0)
        below.set_yticks([])
        dates(below)

    legend = (("invested", 0), ("risk multiplier", 1), *zip(MODES, (3, 4, 2), strict=True))
    caption = (
        "Above: share of equity invested and the master's risk multiplier, means of the seeds. Below: share of the "
        "seeds in each mode."
    )
    picture = svg("directives", PHONE, draw)
    return Picture("directives", "Exposure and the master's directives", caption, picture, legend=legend)


def curve_picture(name: str, title: str, curves: Mapping[str, Curve]) -> Picture:
    """One training figure over steps, one line per seed."""

    def draw(axes: Axes) -> None:
        for index, curve in enumerate(curves.values()):
            x, y = np.array(curve.x, dtype=float), np.array(curve.y, dtype=float)
            rows = thin(len(x))
            single = len(rows) == 1
            axes.plot(x[rows], y[rows], color=SERIES[index % 12], linewidth=1.6, marker="o" if single else None)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))

    legend = tuple((label, index % 12) for index, label in enumerate(curves))
    return Picture(name, title, "", svg(name, (440, 220), draw), legend=legend)


def _growth(account: pd.DataFrame) -> FloatArray:
    equity: FloatArray = account["equity"].to_numpy()
    growth: FloatArray = equity / equity[0]
    return growth


def _worst(times: pd.Series, depth: FloatArray) -> tuple[Any, FloatArray]:
    """Thinned to the deepest value of each stretch, so that no trough is lost."""
    rows = thin(len(depth))
    return times.iloc[rows].to_numpy(), np.maximum.reduceat(depth, rows)


def _shade(axes: Axes, windows: pd.DataFrame) -> None:
    for first, last in windows[["first", "last"]].iloc[::2].to_numpy():
        axes.axvspan(first, last, color=SHADE, linewidth=0, zorder=0)


def _log_growth(axes: Axes, lines: Sequence[FloatArray]) -> None:
    """A log axis with round ticks that suit the range, labelled as multiples of the start."""
    low = min(float(line.min()) for line in lines)
    high = max(float(line.max()) for line in lines)
    low, high = max(low, 1e-6), max(high, low * 1.02, 1e-6)
    axes.set_yscale("log")
    axes.set_ylim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
    ticks: Any = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    if high / low > 20.0:
        decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        ticks = np.outer(decades, [1.0, 3.0]).ravel()
    inside = [tick for tick in ticks if tick > 0 and axes.get_ylim()[0] <= tick <= axes.get_ylim()[1]]
    axes.set_yticks(inside)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}\u00d7"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
