"""Rules as causal functions of the data: what weights they want, and what they refuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from marl_pipeline.agents.rules import RULES, Inputs, Rule, equal_weights, month_starts, rule
from marl_pipeline.data.windows import Span
from marl_pipeline.errors import UserError
from tests.evaluation.evaluation_samples import dataset_of, market, panel_of, random_dataset, signals_of


def test_equal_weight_shares_among_what_trades_and_months_start_at_their_first_bar() -> None:
    tradable = np.array([[True, True], [True, False], [False, False]])
    weights = equal_weights(tradable, np.array([True, True, False]))
    np.testing.assert_array_equal(weights[:2], [[0.5, 0.5], [1.0, 0.0]])
    assert np.isnan(weights[2]).all()
    panel = random_dataset(60).panel
    starts = panel.timestamps[month_starts(panel, Span(0, 60))]
    assert [str(day.astype("datetime64[D]")) for day in starts] == ["2015-01-01", "2015-02-02", "2015-03-02"]


def test_supervised_models_are_followed_at_the_end_of_each_session_up_to_the_limits() -> None:
    dataset = random_dataset(12, bars_per_session=3)
    up = np.tile([0.3, 0.2, 0.1, -0.5], (12, 1))
    limits = market().limits.model_copy(update={"open_positions": 2, "position": 0.4})
    params = market().model_copy(update={"limits": limits})
    span = Span(0, 12)
    weights = rule("sl_thresholds").weights(Inputs(dataset, signals_of(dataset, up), params), span, (0,))
    ends = ~np.isnan(weights).any(axis=1)
    assert np.flatnonzero(ends).tolist() == [2, 5, 8, 11]
    np.testing.assert_allclose(weights[2], [0.4, 0.4, 0, 0])
    strict = rule("sl_thresholds", {"edge": 0.6})
    none = strict.weights(Inputs(dataset, signals_of(dataset, -up), params), span, (0,))
    np.testing.assert_allclose(none[2], 0.0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("momentum", {}, "rule 'momentum' is not known.*time_series_momentum"),
        ("equal_wieght", {}, "did you mean 'equal_weight'"),
        ("cash", {"lookback": 3}, "rule cash: unknown parameter 'lookback'.*options: none"),
        ("time_series_momentum", {"lookbak": 3}, "unknown parameter 'lookbak'.*lookback.*volatility_window"),
        ("time_series_momentum", {"lookback": 1}, "parameter 'lookback'.*found 1"),
        ("sl_thresholds", {"edge": 1.5}, "parameter 'edge'.*found 1.5"),
    ],
)
def test_what_is_not_known_or_out_of_range_is_refused_in_one_line(
    name: str, options: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        rule(name, options)
    assert "\n" not in str(refusal.value)


def test_a_rule_refuses_what_it_can_not_read() -> None:
    dataset = random_dataset(100)
    inputs = Inputs(dataset, None, market())
    with pytest.raises(UserError, match="sl_thresholds follows the supervised models"):
        rule("sl_thresholds").weights(inputs, Span(50, 100), (50,))
    with pytest.raises(UserError, match="lookback 252 needs as many bars"):
        rule("time_series_momentum").weights(inputs, Span(50, 100), (50,))
    with pytest.raises(UserError, match="volatility_window 60 needs as many bars"):
        rule("inverse_volatility").weights(inputs, Span(50, 100), (50,))
    with pytest.raises(UserError, match="symbol 'NOPE' is not in the data"):
        rule("buy_and_hold", {"symbols": ["S00", "NOPE"]}).weights(inputs, Span(50, 100), (50,))


def test_every_rule_has_a_name_and_says_what_it_does() -> None:
    for name, kind in RULES.items():
        assert kind.__doc__, name
        assert rule(name) == kind()


# -- causality ---------------------------------------------------------------------------------------------------

QUICK = {
    "inverse_volatility": {"volatility_window": 4},
    "time_series_momentum": {"lookback": 8, "volatility_window": 4},
}
SPAN, STARTS = Span(60, 160), (60, 110)


def inputs_of(seed: int = 0) -> Inputs:
    """Symbols that are listed late or pause, a benchmark that is known late, models that change their mind."""
    rng = np.random.default_rng(seed)
    dataset = random_dataset(SPAN.stop, seed=seed)
    tradable = rng.random(dataset.panel.tradable.shape) > 0.2
    panel = replace(dataset.panel, tradable=tradable, close=np.where(tradable, dataset.panel.close, np.nan))
    level = np.where(np.arange(SPAN.stop) < 70, np.nan, dataset.benchmark)
    signals = signals_of(dataset, rng.normal(0.0, 0.3, tradable.shape).clip(-0.6, 0.6))
    return Inputs(replace(dataset, panel=panel, benchmark=level), signals, market())


def noise_after(inputs: Inputs, bar: int, seed: int) -> Inputs:
    """Everything after `bar` replaced: prices, who trades, the benchmark and whether it is known, the signals."""
    rng = np.random.default_rng(seed)
    dataset, signals, later = inputs.dataset, inputs.signals, slice(bar + 1, None)
    assert signals is not None
    close, tradable = dataset.panel.close.copy(), dataset.panel.tradable.copy()
    level, probabilities = dataset.benchmark.copy(), signals.probabilities.copy()
    tradable[later] = rng.random(tradable[later].shape) > 0.5
    close[later] = np.where(tradable[later], 50.0 * rng.lognormal(0.0, 0.5, close[later].shape), np.nan)
    level[later] = np.where(rng.random(len(level[later])) > 0.5, 100.0, np.nan)
    probabilities[later] = rng.dirichlet(np.ones(3), probabilities[later].shape[:-1])
    panel = replace(dataset.panel, close=close, tradable=tradable)
    return Inputs(
        replace(dataset, panel=panel, benchmark=level), replace(signals, probabilities=probabilities), inputs.market
    )


class OneBarAhead(Rule):
    """Shows a rule every bar one bar too early."""

    inner: Rule

    def weights(self, inputs: Inputs, span: Span, starts: Sequence[int]) -> np.ndarray:
        def early(table: np.ndarray) -> np.ndarray:
            return np.concatenate([table[1:], table[-1:]])

        dataset, signals = inputs.dataset, inputs.signals
        assert signals is not None
        panel = replace(dataset.panel, close=early(dataset.panel.close), tradable=early(dataset.panel.tradable))
        shown = replace(signals, probabilities=early(signals.probabilities))
        dataset = replace(dataset, panel=panel, benchmark=early(dataset.benchmark))
        return self.inner.weights(Inputs(dataset, shown, inputs.market), span, starts)


def sees_the_future(kind: Rule) -> bool:
    """Whether noise after some bar changes what the rule wants at that bar or before it."""
    inputs = inputs_of()
    honest = kind.weights(inputs, SPAN, STARTS)
    for seed, bar in enumerate(range(SPAN.start, SPAN.stop - 1)):
        other = kind.weights(noise_after(inputs, bar, seed), SPAN, STARTS)
        until = bar - SPAN.start + 1
        if not np.array_equal(honest[:until], other[:until], equal_nan=True):
            return True
    return False


@pytest.mark.parametrize("name", RULES)
def test_no_rule_sees_the_future(name: str) -> None:
    assert not sees_the_future(rule(name, QUICK.get(name)))


@pytest.mark.parametrize("name", [name for name in RULES if name != "cash"])
def test_a_rule_that_is_one_bar_ahead_is_caught(name: str) -> None:
    assert sees_the_future(OneBarAhead(inner=rule(name, QUICK.get(name))))


# -- known answers -----------------------------------------------------------------------------------------------


def test_momentum_holds_what_rose_by_inverse_volatility_and_leaves_the_rest_in_cash() -> None:
    """Two symbols rise and one falls; the first is twice as volatile as the second."""
    swing = np.where(np.arange(60) % 2 == 0, 1.0, -1.0)
    returns = np.stack([0.01 + 0.02 * swing, 0.01 + 0.01 * swing, -0.01 + 0.02 * swing], axis=1)
    dataset = dataset_of(panel_of(100.0 * np.cumprod(1.0 + returns, axis=0)))
    inputs, span = Inputs(dataset, None, market()), Span(40, 60)
    options = {"lookback": 20, "volatility_window": 10}
    weights = rule("time_series_momentum", options).weights(inputs, span, (40,))
    np.testing.assert_allclose(weights[0], [0.25, 0.5, 0.0], rtol=1e-9)
    even = rule("inverse_volatility", {"volatility_window": 10}).weights(inputs, span, (40,))
    np.testing.assert_allclose(even[0], [0.25, 0.5, 0.25], rtol=1e-9)
    months = dataset.panel.timestamps[40:60].astype("datetime64[M]")
    decided = ~np.isnan(weights).any(axis=1)
    assert decided.tolist() == [True, *(months[1:] != months[:-1]).tolist()]


def test_a_symbol_with_too_short_a_past_gets_nothing() -> None:
    close = random_dataset(60, 2).panel.close
    close[:32, 1] = np.nan
    inputs, span = Inputs(dataset_of(panel_of(close)), None, market()), Span(40, 60)
    even = rule("inverse_volatility", {"volatility_window": 10}).weights(inputs, span, (40,))
    assert (even[0] == [1.0, 0.0]).all()
    second = int(np.flatnonzero(~np.isnan(even).any(axis=1))[1])
    assert (even[second] > 0.0).all()


def test_buy_and_hold_buys_what_is_named_once_and_equal_weight_at_every_window() -> None:
    inputs, span = Inputs(random_dataset(60), None, market()), Span(20, 60)
    held = rule("buy_and_hold", {"symbols": ["S01", "S03"]}).weights(inputs, span, (20, 40))
    np.testing.assert_array_equal(held[0], [0.0, 0.5, 0.0, 0.5])
    assert np.isnan(held[1:]).all()
    equal = rule("equal_weight").weights(inputs, span, (20, 40))
    assert np.flatnonzero(~np.isnan(equal).any(axis=1)).tolist() == [0, 20]
