"""Pictures of recorded episodes: actions, reward, accounts and events over the steps of an episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from marl_pipeline.diagnostics.account_figures import EVENTS, FAN
from marl_pipeline.diagnostics.action_diversity import ActionDiversity
from marl_pipeline.envs.trading.rewards.component_log import DOMINANT, Balance
from marl_pipeline.reporting.canvas import DESK, INK, LINE, PHONE, SERIES, Picture, percent, svg

DASHED = (0, (4, 3))
NAMED_SYMBOLS = 24
"""More symbols than this are drawn without their names."""

MOST_POINTS = 3000
"""Of a scatter; more cannot be seen."""


def equity_fan(steps: pd.DataFrame) -> Picture:
    """Quantiles of equity over the accounts at every step, each account as a multiple of its start."""

    def draw(axes: Axes) -> None:
        fan = steps.groupby("step")["growth"].quantile(np.array(FAN)).unstack()
        low, under, middle, over, high = (fan[share].to_numpy() for share in FAN)
        axes.fill_between(fan.index, low, high, color=SERIES[0], alpha=0.16, linewidth=0)
        axes.fill_between(fan.index, under, over, color=SERIES[0], alpha=0.3, linewidth=0)
        axes.plot(fan.index, middle, color=SERIES[0], linewidth=2.2)
        axes.axhline(1.0, color=INK, linewidth=0.8, linestyle=DASHED)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}\u00d7"))
        _steps(axes)

    caption = (
        "Equity as a multiple of the start, by step of the episode. Line: the median account; bands: half of the "
        "accounts, and nine in ten."
    )
    return Picture("equity-fan", "Equity", caption, svg("equity-fan", PHONE, draw), svg("equity-fan-wide", DESK, draw))


def drawdown_steps(steps: pd.DataFrame, limit: float) -> Picture:
    def draw(axes: Axes) -> None:
        by_step = steps.groupby("step")["drawdown"]
        worst, median = by_step.max(), by_step.median()
        axes.fill_between(worst.index, -worst, 0.0, color=SERIES[1], alpha=0.25, linewidth=0)
        axes.plot(worst.index, -worst, color=SERIES[1], linewidth=1.4)
        axes.plot(median.index, -median, color=SERIES[0], linewidth=1.8)
        axes.axhline(-limit, color=INK, linewidth=1.0, linestyle=DASHED)
        percent(axes)
        _steps(axes)

    caption = f"Fall from the reference of the kill switch, which trips at {100 * limit:.0f}% (dashed)."
    legend = (("median account", 0), ("deepest account", 1))
    return Picture("drawdown", "Drawdown", caption, svg("drawdown", PHONE, draw), legend=legend)


def mean_by_step(
    name: str,
    title: str,
    caption: str,
    steps: pd.DataFrame,
    columns: Mapping[str, str],
    finish: Callable[[Axes], None] | None = None,
) -> Picture:
    """Means over the accounts at every step. `columns`: column -> label, a colour each."""

    def draw(axes: Axes) -> None:
        means = steps.groupby("step")[list(columns)].mean()
        for index, column in enumerate(columns):
            axes.plot(means.index, means[column], color=SERIES[index], linewidth=1.6)
        axes.set_ylim(bottom=min(0.0, float(means.min().min()) * 1.05))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if finish is not None:
            finish(axes)
        _steps(axes)

    legend = tuple((label, index) for index, label in enumerate(columns.values())) if len(columns) > 1 else ()
    return Picture(name, title, caption, svg(name, PHONE, draw), legend=legend)


def entropy_steps(actions: ActionDiversity) -> Picture:
    def draw(axes: Axes) -> None:
        axes.plot(actions.by_step.index, actions.by_step, color=SERIES[0], linewidth=1.8)
        axes.axhline(actions.entropy, color=INK, linewidth=1.0, linestyle=DASHED)
        axes.set_ylim(0.0, 1.02)
        _steps(axes)

    caption = "Entropy of the free decisions at each step: 1 is the even spread over all actions, 0 one action only."
    return Picture(
        "entropy-steps", "Variety over time", f"{caption} Dashed: of all steps together.",
        svg("entropy-steps", PHONE, draw),
    )  # fmt: skip


def entropy_symbols(actions: ActionDiversity) -> Picture:
    """Bars, lowest first; many symbols go without their names."""
    values = actions.by_symbol.dropna().sort_values()

    def draw(axes: Axes) -> None:
        axes.bar(range(len(values)), values, color=SERIES[0], width=0.8)
        axes.set_ylim(0.0, 1.02)
        if len(values) <= NAMED_SYMBOLS:
            axes.set_xticks(range(len(values)), values.index, rotation=90, fontsize=9)
            axes.set_position((0.12, 0.2, 0.85, 0.76))
        else:
            axes.set_xticks([])

    caption = "Entropy of each symbol's free decisions, lowest first."
    name = "entropy-symbols"
    return Picture(name, "Variety by symbol", caption, svg(name, PHONE, draw))


def action_shares(actions: ActionDiversity) -> Picture:
    names = list(actions.chosen)

    def draw(axes: Axes) -> None:
        rows = np.arange(len(names))
        for offset, shares, colour in ((-0.2, actions.chosen, SERIES[0]), (0.2, actions.executed, SERIES[1])):
            axes.barh(rows + offset, [shares[name] for name in names], height=0.38, color=colour)
        _bars(axes, names)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))

    caption = "Share of all decisions, before and after the mask."
    legend = (("chosen", 0), ("executed", 1))
    return Picture("actions", "Actions", caption, svg("actions", PHONE, draw), legend=legend)


def component_shares(components: tuple[Balance, ...], group: str) -> Picture:
    def draw(axes: Axes) -> None:
        rows = range(len(components))
        axes.barh(rows, [part.share for part in components], color=_colours(components), height=0.7)
        axes.axvline(DOMINANT, color=INK, linewidth=1.0, linestyle=DASHED)
        axes.set_xlim(0.0, 1.0)
        _bars(axes, [part.component for part in components])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))

    caption = "Share of the absolute total, as paid. Beyond the dashed line a component drowns the others."
    name = f"shares-{group}"
    legend = (("in balance", 0), ("flagged", 1))
    return Picture(name, f"Components of the {group}' reward", caption, svg(name, PHONE, draw), legend=legend)


def component_signal(components: tuple[Balance, ...], group: str) -> Picture:
    def draw(axes: Axes) -> None:
        ratios = [part.signal_to_noise for part in components]
        axes.barh(range(len(components)), ratios, color=_colours(components), height=0.7)
        axes.set_xscale("symlog", linthresh=0.01)
        axes.set_xlim(0.0, max(1.0, 1.2 * max(ratios)))
        axes.set_xticks([0.0, 0.01, 0.1, 1.0, *([10.0] if max(ratios) > 5.0 else [])])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _bars(axes, [part.component for part in components])

    caption = "Mean of a step over its deviation, without sign. Near 0 a component is noise to the learner."
    name = f"signal-{group}"
    legend = (("in balance", 0), ("flagged", 1))
    return Picture(name, f"Signal to noise of the {group}' reward", caption, svg(name, PHONE, draw), legend=legend)


def paid_and_earned(by_agent: pd.DataFrame, correlation: float | None) -> Picture:
    """A point for each agent and episode."""
    shown = by_agent.iloc[:: max(1, -(-len(by_agent) // MOST_POINTS))]

    def draw(axes: Axes) -> None:
        axes.axhline(0.0, color=LINE, linewidth=0.8)
        axes.axvline(0.0, color=LINE, linewidth=0.8)
        axes.scatter(shown["net"], shown["paid"], s=9, color=SERIES[0], alpha=0.5, linewidths=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_position((0.12, 0.16, 0.85, 0.8))
        axes.set_xlabel("earned (net)", fontsize=11)

    stated = "undefined (one of them does not vary)" if correlation is None else f"{correlation:.2f}"
    caption = f"What an agent was paid in an episode (upwards) and what it earned there; correlation: {stated}."
    return Picture("paid-earned", "Paid and earned", caption, svg("paid-earned", PHONE, draw))


def event_timeline(events: pd.DataFrame, last: int) -> Picture:
    """A row for each kind of event; the larger the dot, the more of them at that step."""
    kinds = list(EVENTS)

    def draw(axes: Axes) -> None:
        counts = events.groupby(["kind", "step"]).size()
        for row, kind in enumerate(kinds):
            if kind in counts.index.get_level_values(0):
                at = counts.xs(kind)
                size = 14.0 + 130.0 * np.sqrt(at / at.max())
                colour = SERIES[1] if row < 4 else SERIES[4]
                axes.scatter(at.index, np.full(len(at), row), s=size, color=colour, alpha=0.55, linewidths=0)
        _bars(axes, kinds)
        axes.set_ylim(len(kinds) - 0.5, -0.5)
        axes.set_xlim(0, last + 1)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))

    caption = "Events by step of the episode, all episodes together. The size of a dot is relative to its own row."
    name = "events"
    return Picture(name, "Risk events", caption, svg(name, PHONE, draw), svg(f"{name}-wide", DESK, draw))


def _bars(axes: Axes, names: list[str]) -> None:
    """Names to the left, first on top."""
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    left = 128.0 * axes.get_position().x0 / 54.0  # room for names: 128 points where the canvas leaves 54
    axes.set_position((left, 0.1, 0.94 - left, 0.86))


def _steps(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.margins(x=0.01)


def _colours(components: tuple[Balance, ...]) -> list[str]:
    return [SERIES[1] if part.flags else SERIES[0] for part in components]
