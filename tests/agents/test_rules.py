"""Rules as causal functions of the data: what weights they want, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from marl_pipeline.agents.rules import RULES, Inputs, equal_weights, month_starts, rule
from marl_pipeline.data.windows import Span
from marl_pipeline.errors import UserError
from tests.evaluation.evaluation_samples import market, random_dataset, signals_of


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
