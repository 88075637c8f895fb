"""GO or NO-GO: every gate must pass, and every gate says in words why it did or did not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from marl_pipeline.config import GatesParams
from marl_pipeline.evaluation.metrics import Metrics
from marl_pipeline.evaluation.statistics import Interval

LITTLE_INVESTED = 0.1
"""Below this mean exposure the report says that the policy hardly took part."""

Decision = Literal["GO", "NO-GO"]


@dataclass(frozen=True)
class Gate:
    """One condition.

    Attributes:
        name: as in the report's JSON.
        title: as a reader would say it.
        value, threshold: compared by `comparison`.
        passed: whether it holds.
        words: one sentence for the reader, true of this outcome.
    """

    name: str
    title: str
    value: float
    comparison: Literal[">", ">=", "<="]
    threshold: float
    words: str

    @property
    def passed(self) -> bool:
        match self.comparison:
            case ">":
                return self.value > self.threshold
            case ">=":
                return self.value >= self.threshold
            case "<=":
                return self.value <= self.threshold

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "value": self.value,
            "comparison": self.comparison,
            "threshold": self.threshold,
            "passed": self.passed,
            "words": self.words,
        }


@dataclass(frozen=True)
class Evidence:
    """What the gates are applied to.

    Attributes:
        policy: the headline (mean of the seeds).
        baselines: by name; `equal_weight`, `benchmark` and `sl_thresholds` are needed.
        benchmark_name: what the benchmark is.
        excess: Sharpe ratio of the headline less that of equal weight.
        detectable: the smallest true excess the data could have shown.
        deflated: probability that the headline's Sharpe ratio is more than the best of `trials` lucky ones.
        seed_excess: Sharpe ratio less that of equal weight, of each seed.
        sessions: days out of sample.
    """

    policy: Metrics
    baselines: Mapping[str, Metrics]
    benchmark_name: str
    excess: Interval
    detectable: float
    deflated: float
    trials: int
    seed_excess: Sequence[float]
    sessions: int


def apply_gates(evidence: Evidence, params: GatesParams) -> tuple[Decision, list[str], list[Gate]]:
    """The decision, its reasons in plain words, and every gate.

    The reasons of a NO-GO are the gates that failed; those of a GO are all of them.
    """
    gates = [
        _net_return(evidence, params),
        _excess(evidence, params),
        _excess_bound(evidence),
        _benchmark(evidence),
        _drawdown(evidence, params),
        _deflated(evidence, params),
        _seeds(evidence, params),
        _sessions(evidence, params),
    ]
    failed = [gate for gate in gates if not gate.passed]
    return ("NO-GO" if failed else "GO"), [gate.words for gate in failed or gates], gates


def remarks(evidence: Evidence) -> list[str]:
    """What no gate asks but a reader should know, in sentences."""
    policy, signals = evidence.policy, evidence.baselines["sl_thresholds"]
    lines = []
    if policy.turnover_per_day == 0.0:
        lines.append("The policy never traded: it held cash from the first bar to the last.")
    elif policy.exposure < LITTLE_INVESTED:
        lines.append(f"On average only {percent(policy.exposure)} of the account was invested.")
    if signals.sharpe > policy.sharpe:
        lines.append(
            f"Simply following the supervised models had a Sharpe ratio of {number(signals.sharpe)}, more than the "
            f"policy's {number(policy.sharpe)}: here the simpler rule did better."
        )
    return lines


def percent(value: float, digits: int = 1) -> str:
    """0.1234 -> 12.3%, with a real minus sign."""
    return f"{100.0 * value:.{digits}f}%".replace("-", "\u2212")


def number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}".replace("-", "\u2212")


def _net_return(evidence: Evidence, params: GatesParams) -> Gate:
    value, least = evidence.policy.total_return, params.min_net_return
    verb = "earned" if value > 0 else "lost"
    words = f"After all costs the policy {verb} {percent(abs(value))} over the test span"
    words += f"; it had to end above {percent(least)}."
    return Gate("net_return", "Return after all costs", value, ">", least, words)


def _excess(evidence: Evidence, params: GatesParams) -> Gate:
    value = evidence.excess.value
    own, other = evidence.policy.sharpe, evidence.baselines["equal_weight"].sharpe
    words = (
        f"Its Sharpe ratio of {number(own)} is {number(abs(value))} {'above' if value > 0 else 'below'} the "
        f"{number(other)} of simply holding every symbol in equal weight"
    )
    words += "." if params.min_excess_sharpe == 0 else f"; {number(params.min_excess_sharpe)} was asked for."
    return Gate("excess_sharpe", "Sharpe above equal weight", value, ">", params.min_excess_sharpe, words)


def _excess_bound(evidence: Evidence) -> Gate:
    low, high, level = evidence.excess.low, evidence.excess.high, evidence.excess.confidence
    span = f"the {percent(level, 0)} interval of that difference runs from {number(low)} to {number(high)}"
    if low > 0:
        words = f"The edge is more than luck would explain: {span}."
    elif high < 0:
        words = f"It is worse than equal weight by more than bad luck would explain: {span}."
    else:
        words = (
            f"The difference to equal weight cannot be distinguished from luck: {span}. With this much data an edge "
            f"had to be about {number(evidence.detectable)} in Sharpe ratio to be seen reliably."
        )
    return Gate("excess_sharpe_lower_bound", "Lower bound of that edge", low, ">", 0.0, words)


def _benchmark(evidence: Evidence) -> Gate:
    own, other = evidence.policy.sharpe, evidence.baselines["benchmark"].sharpe
    words = (
        f"Its Sharpe ratio of {number(own)} is {'above' if own > other else 'not above'} the {number(other)} of buying "
        f"and holding the benchmark ({evidence.benchmark_name})."
    )
    return Gate("beats_benchmark", "Sharpe above the benchmark", own - other, ">", 0.0, words)


def _drawdown(evidence: Evidence, params: GatesParams) -> Gate:
    value, most = evidence.policy.max_drawdown, params.max_drawdown
    side = "within" if value <= most else "beyond"
    words = f"Its deepest fall from a peak was {percent(value)}, {side} the {percent(most)} allowed."
    return Gate("max_drawdown", "Deepest drawdown", value, "<=", most, words)


def _deflated(evidence: Evidence, params: GatesParams) -> Gate:
    value, least, trials = evidence.deflated, params.min_deflated_sharpe, evidence.trials
    words = (
        f"Given {trials} {'trial' if trials == 1 else 'trials'}, the probability that its true Sharpe ratio is above "
        f"what luck alone would show is {percent(value)}; {percent(least)} was asked for."
    )
    return Gate("deflated_sharpe", "Deflated Sharpe ratio", value, ">=", least, words)


def _seeds(evidence: Evidence, params: GatesParams) -> Gate:
    better = sum(excess > 0 for excess in evidence.seed_excess)
    count = len(evidence.seed_excess)
    words = (
        f"{better} of {count} {'seed' if count == 1 else 'seeds'} had a Sharpe ratio above equal weight; "
        f"{percent(params.min_seeds_positive, 0)} of them had to."
    )
    share = better / count
    return Gate("seeds_positive", "Seeds above equal weight", share, ">=", params.min_seeds_positive, words)


def _sessions(evidence: Evidence, params: GatesParams) -> Gate:
    value, least = evidence.sessions, params.min_test_sessions
    verdict = "enough" if value >= least else "too few"
    words = f"The policy was tested on {value} trading days it never saw: {verdict} (at least {least} are asked for)."
    return Gate("enough_data", "Trading days out of sample", float(value), ">=", float(least), words)
