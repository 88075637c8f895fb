"""Learning curves of the runs in a folder, or in several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from marl_pipeline.data.dataset import FloatArray, IntArray
from marl_pipeline.errors import UserError
from marl_pipeline.reporting.learning_curves import RETURN, LearningCurve, learning_curve, picture
from marl_pipeline.store.runs import PARTIAL, RUN, read_run

Runs = dict[int, tuple[IntArray, FloatArray]]


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The folders of runs in and below `folders`.

    Raises:
        UserError: there is none in one of them.
    """
    found: list[Path] = []
    for folder in folders:
        below = [path.parent for path in sorted(folder.rglob(RUN)) if not path.parent.name.startswith(PARTIAL)]
        if not below:
            raise UserError(f"{folder}: no finished run here or below; `marl train` makes them")
        found += [path for path in below if path not in found]
    return found


def curves_of(folders: Iterable[Path], metric: str | None = None) -> dict[str, dict[str, LearningCurve]]:
    """Environment -> algorithm -> curve over its seeds. Engines other than torch are shown apart.

    Args:
        metric: the episode metric to follow; the return without one.

    Raises:
        UserError: runs of one algorithm that do not belong together, or one that lacks the metric.
    """
    grouped: dict[str, dict[str, Runs]] = {}
    for folder in folders:
        record = read_run(folder)
        job, evaluations = record["job"], record["evaluations"]
        options = " ".join(f"{key}={value}" for key, value in job["env_options"].items())
        name = job["algo"] if job["engine"] == "torch" else f"{job['algo']} ({job['engine']})"
        runs = grouped.setdefault(f"{job['env']} {options}".strip(), {}).setdefault(name, {})
        if job["seed"] in runs:
            raise UserError(f"{folder}: seed {job['seed']} of {name} is there twice; name one folder of it")
        steps = np.array([one["steps"] for one in evaluations], dtype=np.int64)
        runs[job["seed"]] = (steps, np.array([_mean(folder, one, metric) for one in evaluations], dtype=np.float64))
    return {env: {name: _curve(env, name, runs) for name, runs in algos.items()} for env, algos in grouped.items()}


def draw(path: Path, env: str, curves: Mapping[str, LearningCurve], metric: str | None = None) -> None:
    """Writes the picture of one environment: of its returns, or of an episode metric.

    Raises:
        UserError: `path` ends neither in .svg nor in .png.
    """
    form = path.suffix.removeprefix(".")
    if form not in ("svg", "png"):
        raise UserError(f"{path}: pictures are written as .svg or .png")
    path.parent.mkdir(parents=True, exist_ok=True)
    title = RETURN if metric is None else metric
    path.write_bytes(picture(env, curves, cast("Literal['svg', 'png']", form), title))


def _mean(folder: Path, evaluation: Mapping[str, Any], metric: str | None) -> float:
    if metric is None:
        return float(evaluation["mean"])
    found = evaluation.get("metrics", {})
    if metric not in found:
        raise UserError(f"{folder}: no episode metric '{metric}' in this run (found: {', '.join(found) or 'none'})")
    return float(found[metric]["mean"])


def _curve(env: str, name: str, runs: Runs) -> LearningCurve:
    try:
        return learning_curve(runs)
    except ValueError as error:
        raise UserError(f"{name} on {env}: {error}") from None
