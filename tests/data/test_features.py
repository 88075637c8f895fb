from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.data import trailing
from marl_pipeline.data.dataset import FloatArray, Panel
from marl_pipeline.data.features import FEATURES, Feature, bars_needed, complete, compute_features
from marl_pipeline.data.formulas import Inputs, macd_kernel
from tests.data.market_panels import PARAMS, random_panel, until, with_other_future

DOCS = Path(__file__).parents[2] / "docs" / "features.md"
BY_NAME = {feature.name: feature for feature in FEATURES}


def raw(feature: Feature, panel: Panel) -> FloatArray:
    inputs = Inputs.of(panel)
    return inputs.own.scatter(feature.compute(inputs))


def rv(r: FloatArray, n: int) -> float:
    return math.sqrt(sum(x * x for x in r[-n:]) / n)


def second_implementation(name: str, panel: Panel, n: int) -> float:
    """The feature of the last bar of symbol `n`, in plain Python on its own closes, for a panel without gaps."""
    o, h, low, c, v = (list(getattr(panel, key)[:, n]) for key in ("open", "high", "low", "close", "volume"))
    r = [math.log(b / a) for a, b in itertools.pairwise(c)]
    market = np.diff(np.log(panel.close), axis=0).mean(axis=1)
    match name:
        case "return_1" | "return_5" | "return_10" | "return_20":
            return math.log(c[-1] / c[-1 - int(name.split("_")[1])])
        case "momentum_60":
            return math.log(c[-6] / c[-61])
        case "volatility_5" | "volatility_20":
            return math.log(rv(r, int(name.split("_")[1])) + 1e-6)
        case "volatility_ratio":
            return math.log(rv(r, 5) + 1e-6) - math.log(rv(r, 60) + 1e-6)
        case "rsi_14":
            up, down = sum(x for x in r[-14:] if x > 0), -sum(x for x in r[-14:] if x < 0)
            return 100 - 100 / (1 + up / down)
        case "bollinger_20":
            return float((c[-1] - np.mean(c[-20:])) / (2 * np.std(c[-20:])))
        case "distance_high_20":
            return math.log(c[-1] / max(c[-20:]))
        case "max_drawdown_60":
            return min(c[j] / c[i] - 1 for i in range(-60, 0) for j in range(i, 0))
        case "beta_60":
            return float(np.cov(r[-60:], market[-60:])[0, 1] / np.var(market[-60:], ddof=1))
        case "rank_20":
            moves = np.log(panel.close[-1] / panel.close[-21])
            rank = 1 + sum(move < moves[n] for move in moves)
            return ((rank - 0.5) / len(moves) - 0.5) * math.sqrt(12)
        case "parkinson_20":
            return math.log(
                math.sqrt(
                    np.mean([math.log(a / b) ** 2 for a, b in zip(h, low, strict=True)][-20:]) / (4 * math.log(2))
                )
                + 1e-6
            )
        case "true_range_14":
            ranges = [max(h[i] - low[i], abs(h[i] - c[i - 1]), abs(low[i] - c[i - 1])) / c[i] for i in range(-14, 0)]
            return math.log(sum(ranges) / 14 + 1e-6)
        case "close_location":
            return ((c[-1] - low[-1]) - (h[-1] - c[-1])) / (h[-1] - low[-1])
        case "gap":
            return math.log(o[-1] / c[-2])
        case "volume_surprise_20":
            return math.log1p(v[-1]) - sum(math.log1p(x) for x in v[-20:]) / 20
        case "dollar_volume_trend":
            dollars = [a * b for a, b in zip(c, v, strict=True)]
            return math.log((sum(dollars[-5:]) / 5 + 1) / (sum(dollars[-60:]) / 60 + 1))
        case "on_balance_20":
            return sum(math.copysign(1, x) * y for x, y in zip(r[-20:], v[-20:], strict=True)) / sum(v[-20:])
        case "amihud_20":
            return math.log(
                sum(1e6 * abs(x) / (a * b) for x, a, b in zip(r[-20:], c[-20:], v[-20:], strict=True)) / 20 + 1e-9
            )
    raise AssertionError(f"no second implementation of {name}")


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "macd_histogram"])
def test_formula_agrees_with_a_plain_python_one(name: str) -> None:
    panel = random_panel(3, bars=90)
    found = raw(BY_NAME[name], panel)[-1]
    expected = [second_implementation(name, panel, n) for n in range(len(panel.symbols))]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_macd_is_near_the_recursive_one_and_zero_on_a_flat_price() -> None:
    panel = random_panel(3, bars=400)
    level = np.log(panel.close[:, 0])
    ema = dict.fromkeys((12, 26), level[0])
    signal, histogram = 0.0, 0.0
    for value in level:
        for span in ema:
            ema[span] += 2 / (span + 1) * (value - ema[span])
        line = ema[12] - ema[26]
        signal += 2 / 10 * (line - signal)
        histogram = line - signal
    found = raw(BY_NAME["macd_histogram"], panel)
    assert abs(found[-1, 0] - histogram) < 0.15 * np.nanstd(found[:, 0])
    assert abs(macd_kernel().sum()) < 1e-12
    assert len(macd_kernel()) == 60


def test_there_are_23_features_and_at_least_10_for_close_only_data() -> None:
    assert len(FEATURES) == 23
    assert len(BY_NAME) == 23
    assert sum(feature.needs == "close" for feature in FEATURES) >= 10


def test_close_only_data_gets_the_close_only_features() -> None:
    names, features, _, valid = compute_features(random_panel(1, range_and_volume=False), PARAMS)
    assert names == tuple(feature.name for feature in FEATURES if feature.needs == "close")
    assert valid.any()
    assert np.isfinite(features).all()


def test_docs_table_is_the_registry() -> None:
    rows = [
        tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
        for line in DOCS.read_text().splitlines()
        if line.startswith("| `") and line.count("|") == 6
    ]
    expected = [(f"`{f.name}`", f"`{f.formula}`", f.source, str(f.look_back), f.needs) for f in FEATURES]
    assert rows == expected


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.name)
def test_look_back_is_exactly_as_stated(feature: Feature) -> None:
    panel = random_panel(5, bars=130)
    values = raw(feature, panel)
    first = feature.look_back - 1
    assert np.isnan(values[:first]).all()
    assert np.isfinite(values[first:]).all()
    t = 120
    older = random_panel(6, bars=130)
    names = ("open", "high", "low", "close", "volume")
    cut = t - feature.look_back + 1
    other = replace(panel, **{n: np.concatenate([getattr(older, n)[:cut], getattr(panel, n)[cut:]]) for n in names})
    np.testing.assert_allclose(raw(feature, other)[t], values[t], rtol=1e-7, atol=1e-9)


@given(st.integers(0, 1_000), st.integers(1, 159))
@settings(max_examples=25, deadline=None)
def test_no_feature_sees_the_future(seed: int, rows: int) -> None:
    panel = random_panel(seed, gaps=0.03)
    _, features, ready, valid = compute_features(panel, PARAMS)
    _, other, other_ready, other_valid = compute_features(with_other_future(panel, rows, seed), PARAMS)
    assert features[:rows].tobytes() == other[:rows].tobytes()
    assert ready[:rows].tobytes() == other_ready[:rows].tobytes()
    assert valid[:rows].tobytes() == other_valid[:rows].tobytes()


def test_features_of_a_shorter_history_are_its_first_rows() -> None:
    panel = random_panel(2, gaps=0.05)
    whole = compute_features(panel, PARAMS)[1]
    assert compute_features(until(panel, 130), PARAMS)[1].tobytes() == whole[:130].tobytes()


def test_look_backs_count_a_symbols_own_bars_not_rows_of_the_grid() -> None:
    panel = random_panel(4, bars=150)
    holes = np.zeros(150, dtype=bool)
    holes[[20, 50, 51, 90]] = True
    names = ("open", "high", "low", "close", "volume")
    gappy = replace(panel, **{n: np.where(holes[:, None], np.nan, getattr(panel, n)) for n in names})
    closed_up = replace(panel, **{n: getattr(panel, n)[~holes] for n in names})
    for feature in FEATURES:
        np.testing.assert_array_equal(raw(feature, gappy)[~holes], raw(feature, closed_up), err_msg=feature.name)


def test_valid_means_a_complete_window_of_ready_rows_and_a_tradable_bar() -> None:
    panel = random_panel(4, bars=150)
    tradable = panel.tradable.copy()
    tradable[120, 0] = False
    for values in (panel.open, panel.high, panel.low, panel.close, panel.volume):
        values[100, 1] = np.nan
    _, features, ready, valid = compute_features(replace(panel, tradable=tradable), PARAMS)
    first = bars_needed(PARAMS) - 1
    assert not valid[:first].any()
    assert valid[first:, 2:].all()
    assert valid[119, 0]
    assert not valid[120, 0]
    assert valid[121, 0]
    assert not ready[100, 1]
    assert not valid[100 : 100 + PARAMS.window, 1].any()
    assert valid[100 + PARAMS.window, 1]
    assert (features[~ready] == 0.0).all()
    window = features[first - PARAMS.window + 1 : first + 1]
    assert (window != 0.0).any(axis=-1).all()


def test_prices_that_do_not_move_give_finite_features() -> None:
    panel = random_panel(4, bars=150)
    for values in (panel.open, panel.high, panel.low, panel.close):
        values[:, 0] = 10.0
    panel.volume[:, 0] = 0.0
    _, features, _, valid = compute_features(panel, PARAMS)
    assert valid[-1].all()
    assert np.isfinite(features).all()


def test_scaled_features_are_of_unit_size() -> None:
    params = PARAMS.model_copy(update={"scale_window": 252})
    _, features, ready, _ = compute_features(random_panel(9, bars=1500), params)
    rows = features[ready]
    assert np.abs(rows).max() <= PARAMS.clip
    assert (np.abs(rows.mean(axis=0)) < 0.3).all()
    assert ((rows.std(axis=0) > 0.7) & (rows.std(axis=0) < 1.6)).all()


def test_complete_counts_the_last_rows() -> None:
    ready = np.array([[True], [True], [False], [True], [True], [True]])
    np.testing.assert_array_equal(complete(ready, 2)[:, 0], [False, True, False, False, True, True])
    assert trailing.least_rows(252) == 63
