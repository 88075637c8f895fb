"""The judgement of a track record as one JSON-ready mapping: `reports/rl_validation_summary.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from marl_pipeline.config import ReportParams
from marl_pipeline.data.dataset import Dataset, FloatArray
from marl_pipeline.evaluation.gates import Evidence, apply_gates, remarks
from marl_pipeline.evaluation.metrics import Metrics, daily_equity, session_ends, simple_returns
from marl_pipeline.evaluation.statistics import (
    Interval,
    deflated_sharpe,
    probabilistic_sharpe,
    sharpe_difference,
    sharpe_interval,
    smallest_detectable_edge,
)
from marl_pipeline.evaluation.track_record import COSTS, account_metrics, combine

POWER = 0.8


@dataclass(frozen=True)
class TrackRecord:
    """What `aggregate` leaves for the report.

    Attributes:
        equity: chained equity of every strategy and seed: `strategy`, then as in `track_record.chain`.
        trades: every fill of every strategy and seed.
        baselines: name, ACCOUNT_COLUMNS.
        dataset: for sessions, names and the calendar.
        kinds: strategy -> what kind it is, in the order to show them.
        primary: the strategy that the gates are applied to.
    """

    equity: pd.DataFrame
    trades: pd.DataFrame
    baselines: pd.DataFrame
    dataset: Dataset
    kinds: Mapping[str, str]
    primary: str

    def seeds_of(self, strategy: str) -> dict[int, pd.DataFrame]:
        """One account per seed, in the order of the seeds' numbers."""
        groups = self.equity[self.equity["strategy"] == strategy].groupby("seed", sort=True)
        return {int(str(seed)): table.reset_index(drop=True) for seed, table in groups}

    def headline_of(self, strategy: str) -> pd.DataFrame:
        """The mean of a strategy's seeds."""
        return combine(list(self.seeds_of(strategy).values()))

    @property
    def seeds(self) -> dict[int, pd.DataFrame]:
        """Of the primary strategy."""
        return self.seeds_of(self.primary)

    @property
    def headline(self) -> pd.DataFrame:
        """Of the primary strategy."""
        return self.headline_of(self.primary)

    @property
    def baseline_accounts(self) -> dict[str, pd.DataFrame]:
        groups = self.baselines.groupby("name", sort=False)
        return {str(name): table.reset_index(drop=True) for name, table in groups}

    def metrics(self, account: pd.DataFrame) -> Metrics:
        return account_metrics(account, self.dataset.panel.session, self.dataset.sessions_per_year)

    def daily_returns(self, account: pd.DataFrame) -> FloatArray:
        session = self.dataset.panel.session[account["bar"].to_numpy()]
        return simple_returns(daily_equity(account["equity"].to_numpy(), session))


def summarise(
    record: TrackRecord,
    params: ReportParams,
    *,
    trials: Sequence[Mapping[str, Any]],
    lineage: Mapping[str, Any],
    quality: Mapping[str, Any],
    inputs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Summarises a track record and applies the gates.

    Args:
        trials: lines of `reports/trials.jsonl`: other configurations that were tried. A `sharpe` (annual) in them is
            used for the spread over trials. Every strategy that is played counts as one more, since the primary one may
            have been picked after seeing the others; its seeds do not, since they are averaged and never picked from.
        lineage: hashes of data, parameters and code.
        quality: figures of the data checks (`bars_hidden`, `share_hidden`, `findings`); may be empty.
        inputs: what was read: `name`, `source`, `profile`, `frequency`, `calendar`, `adjustment`, `companions` and
            `notes`.

    Returns:
        A mapping of plain values; NaN and infinities have become None.
    """
    accounts = record.baseline_accounts
    headline, seeds = record.headline, record.seeds
    policy = record.metrics(headline)
    figures = {name: record.metrics(account) for name, account in accounts.items()}
    seed_figures = {seed: record.metrics(account) for seed, account in seeds.items()}
    strategies = _strategies(record, accounts, params)
    others = [part["metrics"]["sharpe"] for name, part in strategies.items() if name != record.primary]
    statistics = _statistics(record, headline, accounts, params, trials, others)
    ends = session_ends(record.dataset.panel.session[headline["bar"].to_numpy()])
    evidence = Evidence(
        policy=policy,
        baselines=figures,
        benchmark_name=record.dataset.benchmark_name,
        excess=statistics.excess["equal_weight"],
        detectable=statistics.detectable,
        deflated=statistics.deflated,
        trials=statistics.trials,
        seed_excess=[seed.sharpe - figures["equal_weight"].sharpe for seed in seed_figures.values()],
        sessions=len(ends),
    )
    decision, reasons, gates = apply_gates(evidence, params.gates)
    summary = {
        "decision": decision,
        "reasons": reasons,
        "remarks": remarks(evidence),
        "gates": [gate.as_dict() for gate in gates],
        "primary": record.primary,
        "policy": policy.as_dict(),
        "strategies": strategies,
        "baselines": {name: metrics.as_dict() for name, metrics in figures.items()},
        "statistics": statistics.as_dict(),
        "windows": _windows(record, headline, accounts),
        "seeds": [{"seed": seed, **metrics.as_dict()} for seed, metrics in seed_figures.items()],
        "costs": _costs(headline),
        "test": _test_span(record, headline, len(ends)),
        "data": _data(record.dataset, quality) | ({"inputs": dict(inputs)} if inputs else {}),
        "lineage": dict(lineage),
    }
    return dict(finite(summary))


def finite(value: Any) -> Any:
    """`value` with every NaN and infinity replaced by None and every numpy scalar by a plain one, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class _Statistics:
    sharpe: Interval
    excess: dict[str, Interval]
    detectable: float
    probabilistic: float
    deflated: float
    lucky_sharpe: float
    trials: int
    samples: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "sharpe": asdict(self.sharpe),
            "excess_sharpe": {name: asdict(interval) for name, interval in self.excess.items()},
            "smallest_detectable_edge": self.detectable,
            "power": POWER,
            "probabilistic_sharpe": self.probabilistic,
            "deflated_sharpe": self.deflated,
            "sharpe_of_best_lucky_trial": self.lucky_sharpe,
            "trials": self.trials,
            "bootstrap_samples": self.samples,
        }


def _statistics(
    record: TrackRecord,
    headline: pd.DataFrame,
    accounts: Mapping[str, pd.DataFrame],
    params: ReportParams,
    trials: Sequence[Mapping[str, Any]],
    others: Sequence[float],
) -> _Statistics:
    year, confidence = record.dataset.sessions_per_year, params.gates.confidence
    samples, seed = params.bootstrap_samples, params.bootstrap_seed
    own = record.daily_returns(headline)
    excess = {
        name: sharpe_difference(
            own, record.daily_returns(account), year, confidence=confidence, samples=samples, seed=seed
        )
        for name, account in accounts.items()
        if name != "cash"
    }
    known = [float(trial["sharpe"]) for trial in trials if isinstance(trial.get("sharpe"), (int, float))]
    interval = sharpe_interval(own, year, confidence=confidence, samples=samples, seed=seed)
    spread = np.array([interval.value, *others, *known]) / math.sqrt(year)
    count = 1 + len(others) + len(trials)
    deflated, lucky = deflated_sharpe(own, count, spread)
    return _Statistics(
        sharpe=interval,
        excess=excess,
        detectable=smallest_detectable_edge(excess["equal_weight"].standard_error, confidence, POWER),
        probabilistic=probabilistic_sharpe(own, 0.0),
        deflated=deflated,
        lucky_sharpe=lucky * math.sqrt(year),
        trials=count,
        samples=samples,
    )


def _strategies(
    record: TrackRecord, accounts: Mapping[str, pd.DataFrame], params: ReportParams
) -> dict[str, dict[str, Any]]:
    """Every strategy on the same days: its figures, and its edges in Sharpe ratio with their intervals."""
    headlines = {name: record.headline_of(name) for name in record.kinds}
    returns = {name: record.daily_returns(account) for name, account in headlines.items()}
    equal_weight = record.daily_returns(accounts["equal_weight"])

    def edge(name: str, other: FloatArray) -> dict[str, float]:
        interval = sharpe_difference(
            returns[name],
            other,
            record.dataset.sessions_per_year,
            confidence=params.gates.confidence,
            samples=params.bootstrap_samples,
            seed=params.bootstrap_seed,
        )
        return {"value": interval.value, "low": interval.low, "high": interval.high}

    return {
        name: {
            "kind": kind,
            "metrics": record.metrics(headlines[name]).as_dict(),
            "excess_sharpe": edge(name, equal_weight),
            "against_primary": None if name == record.primary else edge(name, returns[record.primary]),
            "costs": _costs(headlines[name]),
            "seeds": [{"seed": seed, **record.metrics(one).as_dict()} for seed, one in record.seeds_of(name).items()],
        }
        for name, kind in record.kinds.items()
    }


def _windows(record: TrackRecord, headline: pd.DataFrame, accounts: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """Each window on its own: the headline beside equal weight and the benchmark."""
    first = next(iter(record.seeds.values()))
    rows = []
    for window, bars in first.groupby("window", sort=True)["bar"]:
        inside = headline["bar"].isin(bars).to_numpy()
        part = headline[inside]
        row: dict[str, Any] = {
            "window": int(str(window)),
            "first_bar": int(part["bar"].iloc[0]),
            "last_bar": int(part["bar"].iloc[-1]),
            "first": f"{part['timestamp'].iloc[0]:%Y-%m-%d}",
            "last": f"{part['timestamp'].iloc[-1]:%Y-%m-%d}",
            "policy": record.metrics(part).as_dict(),
        }
        for name in ("equal_weight", "benchmark"):
            row[name] = record.metrics(accounts[name][inside]).as_dict()
        rows.append(row)
    return rows


def _costs(headline: pd.DataFrame) -> dict[str, float]:
    """What was paid over the span as a share of mean equity, by kind."""
    mean = float(headline["equity"].mean())
    shares = {name: float(headline[name].sum()) / mean for name in COSTS}
    return {**shares, "total": sum(shares.values()), "interest_received": float(headline["interest"].sum()) / mean}


def _test_span(record: TrackRecord, headline: pd.DataFrame, sessions: int) -> dict[str, Any]:
    return {
        "first": f"{headline['timestamp'].iloc[0]:%Y-%m-%d}",
        "last": f"{headline['timestamp'].iloc[-1]:%Y-%m-%d}",
        "bars": len(headline),
        "sessions": sessions,
        "fills": int((record.trades["strategy"] == record.primary).sum()),
        "kill_switch_bars": sum(int(seed["kill_switch"].sum()) for seed in record.seeds.values()),
    }


def _data(dataset: Dataset, quality: Mapping[str, Any]) -> dict[str, Any]:
    panel = dataset.panel
    return {
        "symbols": len(panel.symbols),
        "bars": dataset.bars,
        "first": str(panel.timestamps[0].astype("datetime64[D]")),
        "last": str(panel.timestamps[-1].astype("datetime64[D]")),
        "features": list(dataset.feature_names),
        "has_range": panel.has_range,
        "has_volume": panel.has_volume,
        "macro": list(dataset.macro_names),
        "sentiment": list(dataset.sentiment_names),
        "sectors": len(dataset.sectors),
        "benchmark": dataset.benchmark_name,
        "quality": dict(quality),
    }
