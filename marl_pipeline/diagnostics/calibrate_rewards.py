"""Behind `marl env calibrate`: searches the coefficients of a preset for those that teach the most net growth.

A trial trains symbol agents for a few iterations on the train span and is scored by what they then earn, net, on the
validation span; the test span is never looked at. The study is kept in a journal, so that a search that was interrupted
goes on; every trial is a run in MLflow and a line of `reports/trials.jsonl`, which the verdict is deflated by.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from rich.table import Table

from marl_pipeline.agents.trading_market import TradingMarket
from marl_pipeline.checkpoint import NoCheckpoint
from marl_pipeline.config import CalibrateRewardsParams, CurriculumStageParams, GuideParams, Params
from marl_pipeline.data.windows import Spans, split
from marl_pipeline.errors import UserError
from marl_pipeline.pipeline.compute import configure
from marl_pipeline.pipeline.tracking import SpoolRecorder, git_tags, ship_unless_shipped
from marl_pipeline.progress import OnStep, silent
from marl_pipeline.scenarios.trading_market import load_trading_market
from marl_pipeline.seeding import stream_seed
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.paths import DATASET, ENCODER, SIGNALS
from marl_pipeline.store.trials import TRIALS, read_trials
from marl_pipeline.training.hierarchy import SCORE, Tiers, train_symbol_agents

STUDIES = Path(".marl/calibration")

Sampler = Literal["grid", "tpe"]


@dataclass(frozen=True)
class Trial:
    """`net_growth` is the mean over the seeds of `by_seed`: log growth on the validation span, mean of the accounts."""

    number: int
    coefficients: Mapping[str, float]
    net_growth: float
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class Calibration:
    """Attributes:
    study: key of the search: equal keys, equal trials.
    trials: in the order they were made; the first of `tpe` plays the coefficients of params.yaml, if they are in range.
    """

    study: str
    preset: str
    sampler: Sampler
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        return max(self.trials, key=lambda trial: trial.net_growth)

    def overrides(self) -> list[str]:
        """What sets the best coefficients: arguments of `marl run -S`."""
        return [f"market.guide.{name}={value:.6g}" for name, value in self.best.coefficients.items()]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "best": asdict(self.best), "overrides": self.overrides()}


def calibrate(
    root: Path, params: Params, *, sampler: Sampler | None = None, trials: int | None = None, on_step: OnStep = silent
) -> Calibration:
    """Makes the trials that are missing of `trials` (by default as in `params`) and returns all of them.

    Raises:
        UserError: the data set or what the models say of it is not there, a range names no coefficient or leaves what
            it may be, or the same search is under way elsewhere.
    """
    search = params.calibrate_rewards
    kind, wanted = sampler or search.sampler, trials or search.trials
    _check(params.market.guide, search)
    configure(params.run.threads, params.run.device)
    dataset = load_dataset(root / DATASET)
    trading, spans = load_trading_market(params, root, dataset), split(dataset.bars, params.spans)
    tiers = Tiers(params.train_symbol_agents, params.train_master)
    key = study_key(root, params, kind)
    with _study(root, key) as study:
        _append(root, key, params, kind, study)
        try:
            for number in range(len(_complete(study)), min(wanted, _most(search, kind))):
                point, asked = _fixed_point(params.market.guide, search, kind, number), None
                if point is None:
                    study.sampler = optuna.samplers.TPESampler(seed=_seed(number))
                    asked = study.ask(dict(_distributions(search)))
                    point = dict(asked.params)
                guide = params.market.guide.with_coefficients(point)
                by_seed = _recorded(root, key, number, params, guide, trading, tiers, spans)
                _tell(study, search, asked, point, by_seed)
                _append(root, key, params, kind, study)
                on_step("trials", number + 1, wanted, {"net_growth": _mean(by_seed), "best": study.best_value})
        finally:
            ship_unless_shipped(root)
        return Calibration(key, search.preset, kind, _trials(study)[:wanted])


def calibration_table(found: Calibration, most: int = 4) -> Table:
    """The best trials beside the first: what params.yaml says, if that is in range."""
    ranked = sorted(found.trials, key=lambda trial: -trial.net_growth)[:most]
    shown = ranked if found.trials[0] in ranked else [*ranked, found.trials[0]]
    title = f"{found.preset}, {found.sampler}: best of {len(found.trials)} trials on the validation span"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for trial in shown:
        table.add_column(f"trial {trial.number}", justify="right")
    table.add_row("net log growth", *(f"{trial.net_growth:+.4f}" for trial in shown))
    table.add_row("by seed", *(" ".join(f"{value:+.4f}" for value in trial.by_seed) for trial in shown))
    for name in found.best.coefficients:
        table.add_row(name, *(f"{trial.coefficients[name]:.4g}" for trial in shown))
    return table


def study_key(root: Path, params: Params, sampler: Sampler) -> str:
    """One hash of all that decides a trial: data, what the models say of it, parameters. Not their number."""
    digest = hashlib.sha256()
    for folder in (DATASET, SIGNALS, ENCODER):
        for file in sorted((root / folder).rglob("*")):
            if file.is_file():
                digest.update(str(file.relative_to(root)).encode() + b"\0")
                with file.open("rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
    search = params.calibrate_rewards.model_dump(mode="json", exclude={"trials", "sampler"})
    if sampler == "tpe":
        del search["grid_points"]
    decides = [getattr(params, name) for name in ("spans", "market", "train_symbol_agents", "train_master")]
    values = [part.model_dump(mode="json") for part in decides]
    run = (params.run.device, params.run.threads)
    digest.update(json.dumps([sampler, run, search, values], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def net_growth(
    trading: TradingMarket,
    tiers: Tiers,
    guide: GuideParams,
    search: CalibrateRewardsParams,
    spans: Spans,
    seed: int,
) -> float:
    """What agents trained for `search.iterations` under the preset earn on the validation span.

    The weights are those after the last iteration: the best along the way would be a choice made by the score itself.
    """
    market = trading.params.model_copy(update={"reward": search.preset, "guide": guide})
    stage = CurriculumStageParams(name="calibration", symbols=1.0, calm=1.0, iterations=search.iterations)
    agents = tiers.symbols.model_copy(update={"curriculum": (stage,), "evaluate_every": search.iterations})
    _, metadata = train_symbol_agents(
        replace(trading, params=market),
        replace(tiers, symbols=agents),
        train_span=spans.train,
        validation_span=spans.validation,
        seed=seed,
        on_step=silent,
        checkpoint=NoCheckpoint(),
    )
    curves = {curve["name"]: curve["y"] for curve in metadata["curves"]}
    return float(curves[SCORE][-1])


def _check(guide: GuideParams, search: CalibrateRewardsParams) -> None:
    """Both ends of every range must be coefficients."""
    for end in (0, 1):
        guide.with_coefficients({name: ends[end] for name, ends in search.searched().items()})


def _recorded(
    root: Path,
    key: str,
    number: int,
    params: Params,
    guide: GuideParams,
    trading: TradingMarket,
    tiers: Tiers,
    spans: Spans,
) -> list[float]:
    """The scores of one trial, seed by seed, as a run in MLflow."""
    search = params.calibrate_rewards
    tags = {
        "stage": "calibrate_rewards",
        "agent_type": "symbol",
        "curriculum_stage": "none",
        "reward_version": search.preset,
        "study": key,
        **git_tags(root),
    }
    recorded = {"market": {"guide": guide.model_dump()}, "calibrate_rewards": search.model_dump(exclude={"ranges"})}
    with SpoolRecorder(root, f"calibrate_rewards {key[:6]} {number}", recorded, tags) as recorder:
        scores = []
        for place, seed in enumerate(search.seeds):
            scores.append(net_growth(trading, tiers, guide, search, spans, seed))
            recorder.log_metrics({"seed_net_growth": scores[-1]}, place)
        recorder.log_metrics({"net_growth": _mean(scores)})
    return scores


# -- the study -------------------------------------------------------------------------------------------------------


@contextmanager
def _study(root: Path, key: str) -> Iterator[optuna.Study]:
    """The study of that key, for this process alone; what a killed process left running counts as failed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = root / STUDIES
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{key}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder / key}: this search is under way in another process; wait for it") from None
        storage = JournalStorage(JournalFileBackend(str(folder / f"{key}.journal")))
        study = optuna.create_study(storage=storage, study_name=key, direction="maximize", load_if_exists=True)
        for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(left.number, state=TrialState.FAIL)
        yield study


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _trials(study: optuna.Study) -> tuple[Trial, ...]:
    found = []
    for number, trial in enumerate(_complete(study)):
        assert trial.value is not None
        found.append(Trial(number, dict(trial.params), trial.value, tuple(trial.user_attrs["by_seed"])))
    return tuple(found)


def _tell(
    study: optuna.Study,
    search: CalibrateRewardsParams,
    asked: optuna.Trial | None,
    point: Mapping[str, float],
    by_seed: Sequence[float],
) -> None:
    """Puts a finished trial into the study: one that the study was asked for, or a point of our own."""
    if asked is not None:
        asked.set_user_attr("by_seed", list(by_seed))
        study.tell(asked, _mean(by_seed))
        return
    study.add_trial(
        optuna.trial.create_trial(
            params=dict(point),
            distributions=dict(_distributions(search)),
            value=_mean(by_seed),
            user_attrs={"by_seed": list(by_seed)},
        )
    )


def _distributions(search: CalibrateRewardsParams) -> dict[str, BaseDistribution]:
    return {name: FloatDistribution(*ends) for name, ends in search.searched().items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _seed(number: int) -> int:
    """Of trial `number` alone, so that an interrupted search goes on as if it had not been."""
    return stream_seed(0, f"calibration trial {number}") % 2**32


def _fixed_point(
    guide: GuideParams, search: CalibrateRewardsParams, kind: Sampler, number: int
) -> dict[str, float] | None:
    """What trial `number` plays where no sampler is asked: a point of the grid, or first what params.yaml says."""
    if kind == "grid":
        return _grid_point(search, number)
    ranges, own = search.searched(), guide.coefficients()
    inside = all(low <= own[name] <= high for name, (low, high) in ranges.items())
    return {name: own[name] for name in ranges} if number == 0 and inside else None


def _most(search: CalibrateRewardsParams, kind: Sampler) -> int:
    """Trials there can be: a grid ends with its last point."""
    return int(search.grid_points ** len(search.searched())) if kind == "grid" else sys.maxsize


def _grid_point(search: CalibrateRewardsParams, number: int) -> dict[str, float]:
    """The `number`-th point in a shuffled order that does not depend on how many are asked for."""
    size, order = _most(search, "grid"), random.Random(0)
    drawn: dict[int, None] = {}
    while len(drawn) <= number:
        drawn[order.randrange(size)] = None
    rest, point = next(itertools.islice(drawn, number, None)), {}
    for name, (low, high) in search.searched().items():
        rest, place = divmod(rest, search.grid_points)
        point[name] = low + (high - low) * place / (search.grid_points - 1)
    return point


def _append(root: Path, key: str, params: Params, kind: Sampler, study: optuna.Study) -> None:
    """Adds to `reports/trials.jsonl` the complete trials that are not in it."""
    path = root / TRIALS
    recorded = {line.get("trial") for line in read_trials(path) if line.get("study") == key} if path.exists() else set()
    lines = [
        {
            "study": key,
            "trial": trial.number,
            "what": "calibrate_rewards",
            "preset": params.calibrate_rewards.preset,
            "sampler": kind,
            "coefficients": dict(trial.coefficients),
            "validation_net_growth": trial.net_growth,
        }
        for trial in _trials(study)
        if trial.number not in recorded
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
