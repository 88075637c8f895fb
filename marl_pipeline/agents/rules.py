"""Rules: strategies that need no training, as target weights bar by bar.

The row of bar `t` is a function of what is known at the close of `t`: bars, benchmark and supervised signals up to `t`.
`evaluation.rules` plays it in the simulator, where it fills after `t`, at the costs that everyone pays. All are
long-only and unlevered.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError

from marl_pipeline.config import MarketParams, Section, explain
from marl_pipeline.data.dataset import BoolArray, Dataset, FloatArray, Panel, Signals
from marl_pipeline.data.windows import Span
from marl_pipeline.errors import UserError

Lookback = Annotated[int, Field(ge=2, le=100_000)]


@dataclass(frozen=True)
class Inputs:
    """What a rule may read. `signals` is None where no supervised models were fitted."""

    dataset: Dataset
    signals: Signals | None
    market: MarketParams


class Rule(Section, ABC):
    """A rule with its options. Subclasses are registered in `RULES` by name."""

    uses: ClassVar[str] = "bars"
    """What the rule needs beside the bars: "bars" (nothing), "signals" or "benchmark"."""

    def panel(self, dataset: Dataset) -> Panel:
        """What the rule trades: the N' assets of its weights."""
        return dataset.panel

    @abstractmethod
    def weights(self, inputs: Inputs, span: Span, starts: Sequence[int]) -> FloatArray:
        """Target weights wanted after the close of each bar.

        Args:
            span: the bars that are traded.
            starts: bars at which a held-out window begins; the first is `span.start`.

        Returns:
            [len(span), N'] shares of equity, at least 0 with a sum of at most 1; a NaN leaves the position alone.

        Raises:
            UserError: what the rule reads is not there.
        """


class Cash(Rule):
    """Does nothing."""

    def weights(self, inputs: Inputs, span: Span, starts: Sequence[int]) -> FloatArray:
        return np.full((len(span), len(inputs.dataset.panel.symbols)), np.nan)


class EqualWeight(Rule):
    """The same weight in every symbol that trades at the start of a window, then held until the next one begins."""

    def weights(self, inputs: Inputs, span: Span, starts: Sequence[int]) -> FloatArray:
        tradable = _rows(inputs.dataset.panel.tradable, span)
        return equal_weights(tradable, np.isin(np.arange(span.start, span.stop), starts))


class EqualWeightMonthly(Rule):
    """The same weight in every symbol that trades, restored at the first bar of every month."""

    def weights(self, inputs: Inputs, span: Span, starts: Sequence[int]) -> FloatArray:
        panel = inputs.dataset.panel
        return equal_weights(_rows(panel.tradable, span), month_starts(panel, span))


class BuyAndHold(Rule):
    """Equal weights of `symbols` (all that trade, if none are named), bought at the first bar and kept to the end."""

    symbols: tuple[str, ...] = ()

    def weights(self, inputs: Inputs, span: Span, starts: Sequence[int]) -> FloatArray:
        panel = inputs.dataset.panel
        unknown = [name for name in self.symbols if name not in panel.symbols]
        if unknown:
            raise UserError(f"rule buy_and_hold: symbol '{unknown[0]}' is not in the data; name symbols that are")
        chosen = np.array([not self.symbols or name in self.symbols for name in panel.symbols])
        return equal_weights(_rows(panel.tradable, span) & chosen, np.arange(len(span)) == 0)


class Benchmark(Rule):
    """The benchmark as the only asset, bought as soon as it has a value and kept to the end."""

    uses: ClassVar[str] = "benchmark"

    def panel(self, dataset: Dataset) -> Panel:
        return benchmark_panel(dataset)

    def weights(self, inputs: Inputs, span: Span, starts: Sequence[int]) -> FloatArray:
        dataset = inputs.dataset
        known = _rows(self.panel(dataset).tradable, span)[:, 0]
        if not known[:-1].any():
            raise UserError(
                f"benchmark '{dataset.benchmark_name}' has no value in the test span; bring one that covers it"
            )
        return np.where(np.arange(len(span)) == int(np.argmax(known)), 1.0, np.nan)[:, None]


class SignalThresholds(Rule):
    """Follows the supervised models: at the end of each session the symbols with the highest mean P(up) - P(down) above
    `edge`, at most `market.limits.open_positions` of them, equally weighted, none above `market.limits.position`."""

    uses: ClassVar[str] = "signals"

    edge: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05

    def weights(self, inputs: Inputs, span: Span, starts: Sequence[int]) -> FloatArray:
        signals, panel, limits = inputs.signals, inputs.dataset.panel, inputs.market.limits
        if signals is None:
            raise UserError("rule sl_thresholds follows the supervised models and there are none; run sl_signals first")
        probabilities = _rows(signals.probabilities, span).astype(np.float64).mean(axis=2)
        score = probabilities[..., 2] - probabilities[..., 0]
        score = np.where(_rows(signals.available & panel.tradable, span), score, -np.inf)
        rank = np.argsort(np.argsort(-score, axis=1, kind="stable"), axis=1, kind="stable")
        chosen = (score > self.edge) & (rank < limits.open_positions)
        weight = np.minimum(1.0 / np.maximum(chosen.sum(axis=1, keepdims=True), 1), limits.position)
        session = _rows(panel.session, span)
        ends = np.append(session[1:] != session[:-1], True)  # the calendar is known beforehand
        return np.where(ends[:, None], chosen * weight, np.nan)


class InverseVolatility(Rule):
    """Weights inversely proportional to volatility, restored at the first bar of every month.

    Attributes:
        volatility_window: bars of the standard deviation of returns; a symbol with fewer gets nothing.
    """

    volatility_window: Lookback = 60

    def weights(self, inputs: Inputs, span: Span, starts: Sequence[int]) -> FloatArray:
        panel = inputs.dataset.panel
        _require_history(span, self.volatility_window, "inverse_volatility", "volatility_window")
        known = prices_until(panel, span.stop)
        return monthly(
            panel, span, lambda bar: inverse_volatility(known, panel.tradable[bar], bar, self.volatility_window)
        )


class TimeSeriesMomentum(Rule):
    """Moskowitz, Ooi and Pedersen 2012, long-only: what rose over the look-back, weighted by inverse volatility.

    At the first bar of every month each symbol has a share inversely proportional to its volatility, and those with a
    positive return over `lookback` bars are held at that share; the shares of the others stay in cash.

    Attributes:
        lookback: bars of the trailing return whose sign decides; a symbol with fewer gets nothing.
        volatility_window: bars of the standard deviation of returns.
    """

    lookback: Lookback = 252
    volatility_window: Lookback = 60

    def weights(self, inputs: Inputs, span: Span, starts: Sequence[int]) -> FloatArray:
        panel = inputs.dataset.panel
        _require_history(span, self.lookback, "time_series_momentum", "lookback")
        _require_history(span, self.volatility_window, "time_series_momentum", "volatility_window")
        known = prices_until(panel, span.stop)

        def row(bar: int) -> FloatArray:
            past = known[bar] / known[bar - self.lookback] - 1.0
            eligible = panel.tradable[bar] & np.isfinite(past)
            return np.where(past > 0.0, inverse_volatility(known, eligible, bar, self.volatility_window), 0.0)

        return monthly(panel, span, row)


RULES: Mapping[str, type[Rule]] = {
    "cash": Cash,
    "equal_weight": EqualWeight,
    "equal_weight_monthly": EqualWeightMonthly,
    "buy_and_hold": BuyAndHold,
    "benchmark": Benchmark,
    "sl_thresholds": SignalThresholds,
    "inverse_volatility": InverseVolatility,
    "time_series_momentum": TimeSeriesMomentum,
}


def rule(name: str, options: Mapping[str, Any] | None = None) -> Rule:
    """The rule `name` with `options` in place of its defaults.

    Raises:
        UserError: there is no such rule, it has no such option, or an option is out of range.
    """
    if name not in RULES:
        close = difflib.get_close_matches(name, list(RULES), n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise UserError(f"rule '{name}' is not known (known: {', '.join(RULES)}){hint}")
    kind = RULES[name]
    try:
        return kind.model_validate(dict(options or {}))
    except ValidationError as error:
        known = ", ".join(kind.model_fields) or "none"
        raise UserError(f"rule {name}: {explain(error, kind)}; its options: {known}") from None


# -- what rules are made of --------------------------------------------------------------------------------------


def _rows(table: Any, span: Span) -> Any:
    return table[span.start : span.stop]


def equal_weights(tradable: BoolArray, when: BoolArray) -> FloatArray:
    """[K, N] targets: the same weight in every symbol that trades at the bars of `when` [K], NaN elsewhere."""
    count = np.maximum(tradable.sum(axis=1, keepdims=True), 1)
    return np.where(when[:, None], tradable / count, np.nan)


def month_starts(panel: Panel, span: Span) -> BoolArray:
    """[K] the first bar of the span and of each month in it."""
    month = _rows(panel.timestamps, span).astype("datetime64[M]")
    return np.concatenate([[True], month[1:] != month[:-1]])


def monthly(panel: Panel, span: Span, row: Callable[[int], FloatArray]) -> FloatArray:
    """[K, N] the weights `row(bar)` [N] at the bars of `month_starts`, NaN elsewhere."""
    targets = np.full((len(span), len(panel.symbols)), np.nan)
    for index in np.flatnonzero(month_starts(panel, span)):
        targets[index] = row(span.start + int(index))
    return targets


def _require_history(span: Span, bars: int, name: str, option: str) -> None:
    if span.start < bars:
        raise UserError(
            f"rule {name}: {option} {bars} needs as many bars before the first one traded, which is bar {span.start}; "
            f"lower {option} or bring more bars"
        )


def prices_until(panel: Panel, stop: int) -> FloatArray:
    """[stop, N] last close of a tradable bar, NaN before the first."""
    close = np.where(panel.tradable[:stop] & (panel.close[:stop] > 0.0), panel.close[:stop], np.nan)
    filled: FloatArray = pd.DataFrame(close).ffill().to_numpy()
    return filled


def inverse_volatility(prices: FloatArray, eligible: BoolArray, bar: int, window: int) -> FloatArray:
    """[N] weights at `bar` that sum to 1 over the `eligible` [N] with `window` returns; all 0 without any."""
    returns = prices[bar - window + 1 : bar + 1] / prices[bar - window : bar] - 1.0
    volatility = returns.std(axis=0, ddof=1)
    usable = eligible & np.isfinite(volatility) & (volatility > 0.0)
    inverse = np.where(usable, 1.0 / np.where(usable, volatility, 1.0), 0.0)
    return inverse / max(float(inverse.sum()), 1e-300)


def benchmark_panel(dataset: Dataset) -> Panel:
    """The benchmark as the only symbol of a close-only source."""
    level = dataset.benchmark[:, None]
    nothing = np.full(level.shape, np.nan)
    return Panel(
        symbols=(dataset.benchmark_name,),
        timestamps=dataset.panel.timestamps,
        known_at=dataset.panel.known_at,
        session=dataset.panel.session,
        open=nothing,
        high=nothing,
        low=nothing,
        close=level,
        volume=nothing,
        tradable=np.isfinite(level) & (level > 0.0),
    )
