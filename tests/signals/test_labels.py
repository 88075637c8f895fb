import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.data.dataset import Panel
from marl_pipeline.signals.labels import UNKNOWN, VOLATILITY_BARS, label
from tests.signals.learnable_market import dataset_of


def panel_of(close: np.ndarray, opens: np.ndarray | None = None) -> Panel:
    return dataset_of(close, np.zeros((*close.shape, 1)), np.isfinite(close), opens).panel


def random_close(bars: int, symbols: int, seed: int, missing: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(0.02 * rng.standard_normal((bars, symbols)), axis=0))
    return np.where(rng.random(close.shape) < missing, np.nan, close)


def by_hand(close: np.ndarray, opens: np.ndarray, t: int, n: int, horizon: int) -> float:
    """The definition, one number at a time."""
    own = [np.log(close[s, n]) for s in range(t + 1) if np.isfinite(close[s, n])]
    changes: dict[int, float] = {}
    bars = [s for s in range(t + 1) if np.isfinite(close[s, n])]
    for before, now, s in zip(own, own[1:], bars[1:], strict=False):
        changes[s] = now - before
    recent = [change for s, change in changes.items() if s > t - VOLATILITY_BARS]
    if len(recent) < VOLATILITY_BARS // 2 or t + 1 + horizon >= len(close):
        return float("nan")
    entry = opens[t + 1, n] if np.isfinite(opens[t + 1, n]) else close[t + 1, n]
    held = [s for s in range(t + 2 + horizon) if np.isfinite(close[s, n])]
    return float(np.log(close[held[-1], n] / entry) / (np.std(recent) * np.sqrt(horizon)))


@pytest.mark.parametrize("with_open", [False, True])
def test_labels_follow_their_definition(with_open: bool) -> None:
    close = random_close(140, 3, 1, missing=0.05)
    opens = close * np.exp(0.01 * np.random.default_rng(2).standard_normal(close.shape))
    if not with_open:
        opens = np.full_like(close, np.nan)
    labels = label(panel_of(close, opens), horizon=4, threshold=0.5)
    for t in range(140):
        for n in range(3):
            expected = by_hand(close, opens, t, n, 4)
            assert labels.forward[t, n] == pytest.approx(expected, rel=1e-9, nan_ok=True)
            wanted = UNKNOWN if np.isnan(expected) else 1 + (expected > 0.5) - (expected < -0.5)
            assert labels.classes[t, n] == wanted


def test_a_rise_is_up_a_fall_is_down_and_nothing_is_flat() -> None:
    close = np.tile(100 + np.arange(80)[:, None] % 2, (1, 3)).astype(float)
    close[71:] = [200, 50, close[70, 0]]
    labels = label(panel_of(close), horizon=2, threshold=0.5)
    assert labels.classes[69].tolist() == [2, 0, 1]


def test_what_is_over_before_it_can_be_bought_is_no_label() -> None:
    """The jump from bar t to bar t + 1 is gone when the order fills at the close of t + 1."""
    close = np.tile(100 + np.arange(80)[:, None] % 2, (1, 2)).astype(float)
    close[71:] = 200.0
    assert label(panel_of(close), horizon=1, threshold=0.5).classes[70].tolist() == [1, 1]


@settings(max_examples=25, deadline=None)
@given(horizon=st.integers(1, 8), bar=st.integers(40, 100), seed=st.integers(0, 1000))
def test_a_label_reads_no_bar_beyond_its_reach(horizon: int, bar: int, seed: int) -> None:
    close = random_close(120, 2, seed, missing=0.03)
    before = label(panel_of(close), horizon, 0.5)
    changed = close.copy()
    changed[bar + before.reach + 1 :] = random_close(120, 2, seed + 1)[bar + before.reach + 1 :]
    after = label(panel_of(changed), horizon, 0.5)
    assert np.array_equal(before.classes[: bar + 1], after.classes[: bar + 1])
    assert np.array_equal(before.forward[: bar + 1], after.forward[: bar + 1], equal_nan=True)


def test_a_price_that_never_moved_has_no_label() -> None:
    labels = label(panel_of(np.full((100, 2), 10.0)), horizon=3, threshold=0.5)
    assert (labels.classes == UNKNOWN).all()


def test_history_shorter_than_the_reach_has_no_label() -> None:
    labels = label(panel_of(random_close(4, 2, 0)), horizon=5, threshold=0.5)
    assert (labels.classes == UNKNOWN).all()
