"""Pictures as files of their own, beside runs: one style, and the same bytes for the same values."""

from __future__ import annotations

import io
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#1560d4", "#d9720a", "#2c8f5a", "#8a4fc7", "#c2387e", "#0f8b9c", "#a8871a", "#7d8894")
"""Of the page's style sheet (`reporting/style.py`), in the order of its series."""

SOFT, LINES = "#5a6675", "#d5dbe2"
"""Of what is said beside a picture, and of its grid."""

STYLE: Any = {"svg.hashsalt": "marl-pipeline", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11}


def clean(axes: Axes) -> None:
    """Leaves two edges and a faint grid of heights."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=LINES, linewidth=0.6)
    axes.set_axisbelow(True)


def written(figure: Figure, form: Literal["svg", "png"]) -> bytes:
    """The bytes of a file; to be called inside `rc_context(STYLE)`, as the figure is drawn."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    figure.savefig(buffer, format=form, metadata=metadata)
    return buffer.getvalue()
