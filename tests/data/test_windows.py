from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.config import SpansParams, WalkForwardParams
from marl_pipeline.data.windows import (
    Span,
    active_version,
    encoder_refits,
    expanding_refits,
    split,
    walk_forward_windows,
)
from marl_pipeline.errors import UserError

SPANS = SpansParams(validation_fraction=0.12, test_fraction=0.28, embargo=10)


def walk(windows: int = 3, tune_bars: int = 100) -> WalkForwardParams:
    return WalkForwardParams(windows=tuple(range(windows)), tune_bars=tune_bars, tune_iterations=1)


def test_split_by_hand() -> None:
    spans = split(1000, SPANS)
    assert (spans.train, spans.validation, spans.test) == (Span(0, 590), Span(600, 710), Span(720, 1000))


@given(st.integers(200, 5000), st.floats(0.01, 0.45), st.floats(0.05, 0.5), st.integers(0, 20))
@settings(deadline=None)
def test_spans_follow_each_other_an_embargo_apart(bars: int, validation: float, test: float, embargo: int) -> None:
    params = SpansParams(validation_fraction=validation, test_fraction=test, embargo=embargo)
    try:
        spans = split(bars, params)
    except UserError:
        return
    assert spans.train.start == 0
    assert spans.validation.start - spans.train.stop == embargo
    assert spans.test.start - spans.validation.stop == embargo
    assert spans.test.stop == bars


@given(st.integers(300, 4000), st.integers(1, 12), st.integers(1, 80))
@settings(deadline=None)
def test_windows_tile_the_test_span_and_tune_only_before_it(bars: int, count: int, tune: int) -> None:
    windows = walk_forward_windows(bars, SPANS, walk(count, tune))
    test = split(bars, SPANS).test
    assert windows[0].test.start == test.start
    assert windows[-1].test.stop == test.stop
    for before, after in itertools.pairwise(windows):
        assert before.test.stop == after.test.start
        assert abs(len(before.test) - len(after.test)) <= 1
    for window in windows:
        assert len(window.tune) == tune
        assert window.test.start - window.tune.stop == SPANS.embargo


def test_too_little_history_says_so() -> None:
    with pytest.raises(UserError, match="too little history: 12 bars leave"):
        split(12, SPANS)
    with pytest.raises(UserError, match="cannot be cut into 16 windows"):
        walk_forward_windows(110, SPANS, walk(16, 1))
    with pytest.raises(UserError, match=r"window 0 needs 600 bars to tune on \(walk_forward.tune_bars\) and has 422"):
        walk_forward_windows(600, SPANS, walk(2, 600))


@given(st.integers(20, 500), st.integers(1, 300), st.integers(20, 2000), st.integers(0, 19))
@settings(deadline=None)
def test_an_expanding_refit_is_never_valid_at_bars_it_saw(first: int, every: int, bars: int, embargo: int) -> None:
    refits = expanding_refits(first, every, bars, embargo)
    assert [refit.version for refit in refits] == list(range(len(refits)))
    covered = [bar for refit in refits for bar in range(refit.valid_bars.start, refit.valid_bars.stop)]
    assert covered == list(range(first, bars))
    assert all(refit.fitted_until == refit.valid_bars.start - embargo for refit in refits)


@given(st.integers(300, 4000), st.integers(1, 12), st.integers(1, 600))
@settings(deadline=None)
def test_every_window_has_one_encoder_fitted_before_it(bars: int, count: int, every: int) -> None:
    params = walk(count, 10)
    refits = encoder_refits(bars, SPANS, params, every)
    assert refits[0].fitted_until == split(bars, SPANS).train.stop
    assert refits[0].valid_bars.start == 0
    assert refits[-1].valid_bars.stop == bars
    for window in walk_forward_windows(bars, SPANS, params):
        version = active_version(refits, window.test.start)
        assert version == active_version(refits, window.test.stop - 1)
        assert version.fitted_until <= window.test.start - SPANS.embargo
    for before, after in itertools.pairwise(refits[1:]):
        assert after.valid_bars.start - before.valid_bars.start >= every


def test_asking_for_a_fit_before_the_first_is_an_error() -> None:
    with pytest.raises(ValueError, match="no fit is valid at bar 3; they are valid from 100"):
        active_version(expanding_refits(100, 50, 200, 5), 3)
