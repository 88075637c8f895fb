"""Features of the user's own: causal by construction, and refused where they are not what they declare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marl_pipeline.config import load_params
from marl_pipeline.data.custom import Bars, CustomFeature, load_custom
from marl_pipeline.data.features import compute_features
from marl_pipeline.errors import UserError
from tests.envs.markets import panel

PARAMS = load_params(Path(__file__).parents[2] / "profiles" / "quickstart.yaml").build_features.model_copy(
    update={"scale_window": 40, "window": 4}
)
HEAD = "import numpy as np\nfrom marl_pipeline.data.custom import Bars, feature\n\n"
GOOD = (
    HEAD
    + """
@feature(look_back=3)
def change_2(bars: Bars) -> np.ndarray:
    log = np.log(bars.close)
    return log - np.roll(log, 2, axis=0)


@feature(look_back=1, scaled=False)
def above_average(bars):
    return np.sign(bars.close - np.nanmean(bars.close, axis=1, keepdims=True))
"""
)


def market(bars: int = 160, size: int = 3) -> object:
    rng = np.random.default_rng(1)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, (bars, size)), axis=0))
    close[70, 1] = np.nan
    return panel(close)


def loaded(folder: Path, text: str, taken: tuple[str, ...] = ()) -> tuple[CustomFeature, ...]:
    (folder / "my_features.py").write_text(text)
    return load_custom(folder / "my_features.py", taken)


def test_a_feature_is_what_its_function_says_of_the_last_row_of_its_look_back(tmp_path: Path) -> None:
    change, above = loaded(tmp_path, GOOD)
    assert (change.name, change.look_back, change.scaled) == ("change_2", 3, True)
    bars = Bars.of(market())
    close = bars.close
    expected = np.full(close.shape, np.nan)
    expected[2:] = np.log(close[2:]) - np.log(close[:-2])
    np.testing.assert_allclose(change.compute(bars), expected)
    assert not list(tmp_path.glob("__pycache__")), "nothing is left beside the user's file"
    assert np.nanmax(np.abs(above.compute(bars))) == 1.0


def test_custom_features_stand_behind_the_others_and_are_scaled_like_them(tmp_path: Path) -> None:
    custom = loaded(tmp_path, GOOD)
    market_of = market()
    names, features, ready, _ = compute_features(market_of, PARAMS, custom)
    plain_names, plain, _, _ = compute_features(market_of, PARAMS)
    assert names == (*plain_names, "change_2", "above_average")
    np.testing.assert_array_equal(features[ready][:, : len(plain_names)], plain[ready])
    assert set(np.unique(features[ready][:, -1])) <= {-1.0, 0.0, 1.0}
    assert np.abs(features[ready][:, -2]).max() <= PARAMS.clip
    assert ready.any()


def test_what_is_known_at_a_bar_needs_nothing_after_it(tmp_path: Path) -> None:
    custom = loaded(tmp_path, GOOD)
    close = market().close.copy()
    changed = close.copy()
    changed[101:] *= 1.7
    before, after = (compute_features(panel(prices), PARAMS, custom)[1] for prices in (close, changed))
    np.testing.assert_array_equal(before[:101, :, -2:], after[:101, :, -2:])
    assert (before[101:, :, -2:] != after[101:, :, -2:]).any()


@pytest.mark.parametrize(
    "body",
    [
        "return np.roll(bars.close, -1, axis=0)",
        "return bars.close / np.nanmean(bars.close, axis=0)",
        "return (bars.close - bars.close.mean(axis=0)) / bars.close.std(axis=0)",
        "return np.flip(np.maximum.accumulate(np.flip(bars.close, 0), axis=0), 0)",
        "import pandas as pd\n    return pd.DataFrame(bars.close).bfill().to_numpy()",
        "return pd_rank(bars.close)",
    ],
)
def test_a_feature_that_looks_ahead_is_refused_by_name(tmp_path: Path, body: str) -> None:
    helper = "def pd_rank(x):\n    return np.argsort(np.argsort(np.nan_to_num(x), axis=0), axis=0) / len(x)\n\n"
    (ahead,) = loaded(tmp_path, HEAD + helper + f"@feature(look_back=5)\ndef sees(bars):\n    {body}\n")
    with pytest.raises(UserError, match=r"my_features\.py: feature sees looks ahead: of S00\d at "):
        ahead.compute(Bars.of(market()))


def test_the_same_feature_without_the_look_ahead_passes(tmp_path: Path) -> None:
    (behind,) = loaded(
        tmp_path, HEAD + "@feature(look_back=5)\ndef sees(bars):\n    return np.roll(bars.close, 1, axis=0)\n"
    )
    assert np.isfinite(behind.compute(Bars.of(market()))).any()


def test_a_look_back_that_is_too_short_is_refused(tmp_path: Path) -> None:
    text = HEAD + "@feature(look_back=5)\ndef far(bars):\n    return bars.close - np.roll(bars.close, 9, axis=0)\n"
    (far,) = loaded(tmp_path, text)
    with pytest.raises(UserError, match="feature far reads further back than its look_back of 5"):
        far.compute(Bars.of(market()))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return bars.close[-1]", r"shape \(3,\) for bars of shape"),
        ("return bars.clothes", r"AttributeError: .*clothes.* \(line 6\)"),
        ("bars.close[0] = 1.0\n    return bars.close", "ValueError: .*read-only"),
        ("return 1 / 0", r"ZeroDivisionError: division by zero \(line 6\)"),
    ],
)
def test_a_function_that_fails_is_named_with_its_line(tmp_path: Path, body: str, words: str) -> None:
    (broken,) = loaded(tmp_path, HEAD + f"@feature(look_back=2)\ndef broken(bars):\n    {body}\n")
    with pytest.raises(UserError, match=r"my_features\.py: feature broken.*" + words) as error:
        broken.compute(Bars.of(market()))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", "no function there is marked"),
        ("def f(:\n", r"SyntaxError: .*\(line 1\)"),
        ("import nowhere_to_be_found\n", "ModuleNotFoundError"),
        (HEAD + "@feature(look_back=0)\ndef f(bars):\n    return bars.close\n", "give the number of bars"),
        (
            HEAD + "@feature(look_back=2)\ndef return_1(bars):\n    return bars.close\n",
            "feature return_1 exists already",
        ),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        loaded(tmp_path, text, ("return_1",))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path)) or "give the number" in str(error.value)
