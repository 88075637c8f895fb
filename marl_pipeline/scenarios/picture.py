"""What a scenario shows of one episode, as numbers in panels; `reporting.episode_pictures` draws them.

A picture is declared by two functions: what is recorded of every step, and what is shown of the recorded episode. So
scenarios draw nothing themselves, and tests look at the numbers that are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from marl_pipeline.algos.common.episodes import EpisodeStep

Recorded = Mapping[str, NDArray[Any]]
"""Name -> [T, ...] values of the steps of one episode, and `team_reward` [T] of every episode."""

Marker = Literal["start", "end", "landmark"]


@dataclass(frozen=True)
class Line:
    """A line, or markers alone.

    Attributes:
        x, y: [P] each; `x` may be times.
        label: in the legend; lines of one label share an entry, those without have none.
        colour: number of the colour; or "grey", and "faint" for what stands behind.
        marker: drawn at every point instead of a line.
    """

    x: ArrayLike
    y: ArrayLike
    label: str = ""
    colour: int | Literal["grey", "faint"] = 0
    width: float = 1.8
    dashed: bool = False
    marker: Marker | None = None


@dataclass(frozen=True)
class Table:
    """A matrix whose cells say their value.

    Attributes:
        values: [R, C]; the higher, the darker the cell.
        outlined: [R, C], the share of the steps in which the cell was played; 0 for never.
        dotted: [R, C] whether the cell is one of the best.
    """

    values: ArrayLike
    outlined: ArrayLike
    dotted: ArrayLike


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        x, y: what the axes show, with the unit.
        shows: lines, or one table.
        percent: whether `y` are shares, written as percentages.
        square: whether both axes have one scale, as a map has.
    """

    title: str
    x: str
    y: str
    shows: Sequence[Line] | Table
    percent: bool = False
    square: bool = False


@dataclass(frozen=True)
class EpisodePicture:
    """A picture of one greedy episode of the test environment, played in a single environment.

    Attributes:
        record: what is kept of a step: name -> [1, ...].
        panels: what is shown of the episode.
        across: panels stand side by side; else one above the other.
    """

    record: Callable[[EpisodeStep], Mapping[str, Tensor]]
    panels: Callable[[Recorded], Sequence[Panel]]
    across: bool = False
