"""How well algorithms learn, over seeds: interquartile means with bootstrap intervals, and their picture.

Agarwal et al. 2021 ("Deep reinforcement learning at the edge of the statistical precipice"): the mean of the middle
half of the runs is robust to outliers and needs fewer runs than the median; its interval comes from resampling runs
within each task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from marl_pipeline.data.dataset import FloatArray, IntArray
from marl_pipeline.reporting.picture_file import COLOURS, SOFT, STYLE, clean, written

SAMPLES = 10_000
CONFIDENCE = 0.95

RETURN = "return of an episode, the team's"


@dataclass(frozen=True)
class Summary:
    """An interquartile mean [...] with its central bootstrap interval, over `runs` runs."""

    value: FloatArray
    low: FloatArray
    high: FloatArray
    runs: int


@dataclass(frozen=True)
class LearningCurve:
    """Of one algorithm: `summary` holds [P] returns after `steps` [P] environment steps."""

    steps: IntArray
    summary: Summary


def interquartile_mean(scores: FloatArray) -> FloatArray:
    """[n, ...] -> [...]: the mean of what is left when the lowest and the highest n // 4 are dropped."""
    trimmed = len(scores) // 4
    middle: FloatArray = np.sort(scores, axis=0)[trimmed : len(scores) - trimmed].mean(axis=0)
    return middle


def summarise(scores: FloatArray, *, seed: int = 0) -> Summary:
    """Interquartile mean over runs and tasks, with its stratified bootstrap interval.

    Args:
        scores: [R, K, ...] of R runs on each of K tasks; runs are resampled within their task, all entries of a run
            together.
        seed: of the resampling.

    Raises:
        ValueError: no runs or no tasks.
    """
    runs, tasks = scores.shape[:2]
    if not runs or not tasks:
        raise ValueError(f"at least one run and one task are needed, found shape {scores.shape}")
    drawn = np.random.default_rng(seed).integers(runs, size=(SAMPLES, runs, tasks))
    resampled = np.empty((SAMPLES, *scores.shape[2:]))
    for sample, rows in enumerate(drawn):
        chosen = np.take_along_axis(scores, rows.reshape(runs, tasks, *[1] * (scores.ndim - 2)), axis=0)
        resampled[sample] = interquartile_mean(chosen.reshape(runs * tasks, *scores.shape[2:]))
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail], axis=0)
    return Summary(interquartile_mean(scores.reshape(runs * tasks, *scores.shape[2:])), low, high, runs)


def learning_curve(runs: Mapping[int, tuple[IntArray, FloatArray]], *, seed: int = 0) -> LearningCurve:
    """Of one algorithm on one environment.

    Engines that end their rollouts with whole episodes evaluate a little sooner or later from seed to seed: where that
    is less than a quarter of the way to the next evaluation, a point stands at the mean of the steps.

    Args:
        runs: seed -> (steps [P], returns [P]).

    Raises:
        ValueError: no run, or runs that were evaluated at different steps.
    """
    if not runs:
        raise ValueError("a learning curve needs at least one run")
    grids = [steps for steps, _ in runs.values()]
    alike = len({len(grid) for grid in grids}) == 1
    if alike:
        together = np.stack(grids)
        steps = np.rint(together.mean(axis=0)).astype(np.int64)
        alike = bool((4 * np.ptp(together, axis=0) < np.diff(steps, prepend=0).min()).all())
    if not alike:
        raise ValueError(
            f"the runs of seeds {', '.join(map(str, runs))} were evaluated at different steps; train them with the "
            "same --timesteps and --evaluate-every"
        )
    returns = np.stack([values for _, values in runs.values()])
    return LearningCurve(steps, summarise(returns[:, np.newaxis], seed=seed))


def picture(
    title: str, curves: Mapping[str, LearningCurve], form: Literal["svg", "png"], figure_name: str = RETURN
) -> bytes:
    """One line for each algorithm with its interval shaded; the same bytes for the same values.

    Args:
        figure_name: what the curves show, for the axis.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(8.0, 4.6), dpi=120, layout="constrained")
        axes = figure.subplots()
        for index, (name, curve) in enumerate(curves.items()):
            colour, summary = COLOURS[index % len(COLOURS)], curve.summary
            seeds = "1 seed" if summary.runs == 1 else f"{summary.runs} seeds"
            final = f"{summary.value[-1]:{'.1f' if figure_name == RETURN else '.3g'}}".replace("-", "\u2212")
            label = f"{name} ({seeds}; ends at {final})"
            marker = "o" if len(curve.steps) == 1 else None
            axes.plot(curve.steps, summary.value, color=colour, linewidth=2.0, marker=marker, label=label)
            if summary.runs > 1:
                axes.fill_between(curve.steps, summary.low, summary.high, color=colour, alpha=0.18, linewidth=0)
        axes.set(xlabel="environment steps", ylabel=figure_name)
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_xlim(left=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _steps(value)))
        clean(axes)
        axes.legend(loc="best", frameon=False)
        axes.text(
            1.0,
            -0.17,
            f"greedy policy; interquartile mean over seeds, {100 * CONFIDENCE:.0f}% stratified bootstrap intervals",
            transform=axes.transAxes,
            ha="right",
            va="top",
            fontsize=9,
            color=SOFT,
        )
        return written(figure, form)


def _steps(value: float) -> str:
    """1500000 as 1.5M, 20000 as 20k."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
