"""Draws what scenarios show of an episode (`scenarios.picture`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from marl_pipeline.reporting.canvas import dates, percent
from marl_pipeline.reporting.picture_file import COLOURS, LINES, SOFT, STYLE, clean, written
from marl_pipeline.scenarios.picture import Line, Panel, Table

MARKERS: dict[str, dict[str, Any]] = {
    "start": {"marker": "o", "markersize": 7, "markerfacecolor": "white", "zorder": 4},
    "end": {"marker": "o", "markersize": 7, "zorder": 5},
    "landmark": {"marker": "X", "markersize": 12, "markeredgecolor": "white", "color": "#1c2430", "zorder": 3},
}
GREYS = {"grey": SOFT, "faint": "#c3cad3"}
SHADES = LinearSegmentedColormap.from_list("payoffs", ["#ffffff", "#a9c8f5"])
PLAYED, BEST = "played by the policy, in this share of the steps", "best joint action"

ACROSS, DOWN = (4.4, 4.9), (8.0, 2.3)
"""Inches of a panel that stands beside others, and of one that stands above others."""


def episode_picture(
    title: str, note: str, panels: Sequence[Panel], *, across: bool, form: Literal["svg", "png"] = "svg"
) -> bytes:
    """The panels in one file, below a title and a line in small type; one legend for all of them at the bottom."""
    with rc_context(STYLE):
        return written(drawn(title, note, panels, across=across), form)


def drawn(title: str, note: str, panels: Sequence[Panel], *, across: bool) -> Figure:
    """The figure behind `episode_picture`."""
    count = len(panels)
    width, height = (max(ACROSS[0] * count, 5.2), ACROSS[1]) if across else (DOWN[0], DOWN[1] * count + 1.0)
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12)  # type: ignore[union-attr, call-arg]
    rows, columns = (1, count) if across else (count, 1)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=not across)
    for panel, axes in zip(panels, grid.flat, strict=True):
        if isinstance(panel.shows, Table):
            _table(axes, panel.shows)
        else:
            _lines(axes, panel, panel.shows)
        axes.set(xlabel=panel.x, ylabel=panel.y)
        axes.set_title(panel.title, loc="left", fontsize=11)
    if not across:
        figure.align_ylabels()
    figure.suptitle(f"{title}\n", x=0.01, ha="left", fontweight="bold", fontsize=12)
    figure.text(0.01, 1.0 - 0.36 / height, note, ha="left", va="center", fontsize=9, color=SOFT)
    _legend(figure, list(grid.flat))
    return figure


def _lines(axes: Axes, panel: Panel, lines: Sequence[Line]) -> None:
    for line in lines:
        colour = GREYS[line.colour] if isinstance(line.colour, str) else COLOURS[line.colour % len(COLOURS)]
        look: dict[str, Any] = {"linestyle": (0, (4, 3)) if line.dashed else "-", "linewidth": line.width}
        if line.marker is not None:
            look = {"linestyle": "none", "clip_on": False, **MARKERS[line.marker]}
        axes.plot(np.asarray(line.x), np.asarray(line.y), label=line.label or None, **{"color": colour, **look})
    clean(axes)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if panel.percent:
        percent(axes)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if any(np.asarray(line.x).dtype.kind == "M" for line in lines):
        dates(axes)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=not panel.square, steps=[1, 2, 2.5, 5, 10]))
    if panel.square:
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(axis="x", color=LINES, linewidth=0.6)


def _table(axes: Axes, table: Table) -> None:
    values, played, best = np.asarray(table.values), np.asarray(table.outlined), np.asarray(table.dotted)
    axes.imshow(values, cmap=SHADES)
    labelled: set[str] = set()
    for (row, column), value in np.ndenumerate(values):
        share = played[row, column]
        words = f"{value:g}".replace("-", "\u2212") + (f"\n{100 * share:.0f}%" if share else "")
        axes.text(column, row, words, ha="center", va="center", fontsize=10, fontweight="bold" if share else None)
        outlines: tuple[tuple[bool, str, float, dict[str, Any]], ...] = (
            (
                bool(best[row, column]),
                BEST,
                0.09,
                {"edgecolor": COLOURS[2], "linestyle": (0, (2, 2)), "linewidth": 1.6},
            ),
            (bool(share), PLAYED, 0.03, {"edgecolor": COLOURS[1], "linestyle": "-", "linewidth": 3.0}),
        )
        for shown, label, inset, look in outlines:
            if shown:
                size = 1.0 - 2.0 * inset
                corner = (column - size / 2.0, row - size / 2.0)
                new = "" if label in labelled else label
                labelled.add(label)
                axes.add_patch(Rectangle(corner, size, size, fill=False, label=new, **look))
    axes.set_xticks(range(values.shape[1]))
    axes.set_yticks(range(values.shape[0]))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _legend(figure: Figure, every: Sequence[Axes]) -> None:
    """One entry for each label, in the order of drawing; none where nothing has a label."""
    found: dict[str, Artist] = {}
    for axes in every:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        across = max(1, min(len(found), int(figure.get_figwidth() / (0.7 + 0.08 * max(map(len, found))))))
        figure.legend(list(found.values()), list(found), loc="outside lower left", ncols=across, frameon=False)
