"""Pictures as inline SVG: the same values give the same bytes, and colours follow the page's theme.

Matplotlib draws with stand-in colours that are then replaced by CSS variables (`var(--c0)`, `var(--ink)`), so that one
picture serves light and dark. Legends are left to the page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from marl_pipeline.data.dataset import FloatArray

INK, LINE, SHADE = "#0000f0", "#0000f1", "#0000f2"
SERIES = tuple(f"#0000{index:02x}" for index in range(1, 13))
"""Stand-ins for the twelve colours of series; `SERIES[k]` becomes `var(--c<k>)`."""

VARIABLES = {INK: "var(--ink)", LINE: "var(--line)", SHADE: "var(--shade)"} | {
    colour: f"var(--c{index})" for index, colour in enumerate(SERIES)
}
POINTS = 500
"""A line longer than this is thinned: more cannot be seen."""

STYLE: Any = {
    "svg.hashsalt": "marl-pipeline",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "path.simplify": True,
}

PHONE, DESK = (440, 300), (1040, 400)
"""Width and height in points: for a column of a phone or half a screen, and for the full width of a screen."""


@dataclass(frozen=True)
class Picture:
    """One picture with what the page writes around it.

    Attributes:
        name: unique on the page.
        title, caption: above and below it; plain text.
        svg: drawn for a narrow column.
        wide: drawn for the full width of a screen, or "" if the narrow one serves everywhere.
        legend: label and number of the colour, in the order of drawing.
    """

    name: str
    title: str
    caption: str
    svg: str
    wide: str = ""
    legend: tuple[tuple[str, int], ...] = ()


def svg(name: str, size: tuple[int, int], draw: Callable[[Axes], None]) -> str:
    """Draws on one pair of axes and returns an `<svg>` element that can stand beside others on a page."""
    width, height = size
    with rc_context(STYLE):
        figure = Figure(figsize=(width / 72.0, height / 72.0))
        axes = figure.add_axes((54 / width, 30 / height, 1 - 66 / width, 1 - 42 / height))
        draw(axes)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"#0000[0-9a-f]{2}", lambda found: VARIABLES[found.group()], text)
    head = rf'<svg viewBox="\1" role="img" aria-label="{name}">'
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', head, text, count=1)
    return text.strip()


def thin(length: int) -> Any:
    """Rows to draw: all of them, or every k-th and the last."""
    step = max(1, -(-length // POINTS))
    rows = np.arange(0, length, step)
    return rows if length == 0 or rows[-1] == length - 1 else np.append(rows, length - 1)


def line(axes: Axes, times: pd.Series, values: FloatArray, colour: str, *, width: float, alpha: float = 1.0) -> None:
    rows = thin(len(values))
    axes.plot(times.iloc[rows].to_numpy(), values[rows], color=colour, linewidth=width, alpha=alpha)


def percent(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%".replace("-", "\u2212")))


def dates(axes: Axes) -> None:
    locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))  # type: ignore[no-untyped-call]
    axes.margins(x=0.01)
