"""Interquartile means and their intervals, by hand and by simulation; the picture of learning."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import trim_mean

from marl_pipeline.reporting.learning_curves import interquartile_mean, learning_curve, picture, summarise


def test_the_interquartile_mean_drops_a_quarter_from_each_end() -> None:
    assert interquartile_mean(np.array([1000.0, 1.0, 2.0, -1000.0])) == 1.5
    assert interquartile_mean(np.array([3.0, 1.0, 2.0])) == 2.0  # three runs: none is dropped
    scores = np.random.default_rng(0).normal(size=(11, 3))
    np.testing.assert_allclose(interquartile_mean(scores), trim_mean(scores, 0.25, axis=0))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [summarise(rng.normal(size=(20, 1)), seed=trial) for trial in range(60)]
    covered = np.mean([float(one.low) < 0.0 < float(one.high) for one in found])
    assert 0.8 < covered <= 1.0
    assert all(one.low <= one.value <= one.high for one in found)


def test_runs_are_resampled_within_their_task() -> None:
    """Two tasks on scales apart: mixing them would make the interval as wide as the gap between them."""
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(10, 2)) + np.array([0.0, 1000.0])
    found = summarise(scores)
    assert found.high - found.low < 20.0


def test_a_curve_summarises_its_seeds_step_by_step() -> None:
    steps = np.array([10, 20])
    curve = learning_curve({seed: (steps, np.array([seed, 2.0 * seed])) for seed in (1, 2, 3)})
    np.testing.assert_array_equal(curve.steps, steps)
    np.testing.assert_allclose(curve.summary.value, [2.0, 4.0])
    assert curve.summary.runs == 3
    assert np.all(curve.summary.low < curve.summary.high)
    alone = learning_curve({7: (steps, np.array([1.0, 2.0]))}).summary
    assert np.array_equal(alone.low, alone.high)


def test_evaluations_a_little_apart_stand_at_the_mean_of_their_steps() -> None:
    runs = {0: (np.array([1000, 2010]), np.zeros(2)), 1: (np.array([1020, 2000]), np.ones(2))}
    assert learning_curve(runs).steps.tolist() == [1010, 2005]


def test_runs_on_different_steps_are_refused() -> None:
    shorter = {0: (np.array([10, 20]), np.zeros(2)), 1: (np.array([10]), np.zeros(1))}
    with pytest.raises(ValueError, match="evaluated at different steps"):
        learning_curve(shorter)
    runs = {0: (np.array([10, 20]), np.zeros(2)), 1: (np.array([10, 30]), np.zeros(2))}
    with pytest.raises(ValueError, match="seeds 0, 1 were evaluated at different steps"):
        learning_curve(runs)
    with pytest.raises(ValueError, match="at least one run"):
        learning_curve({})
    with pytest.raises(ValueError, match="at least one run"):
        summarise(np.zeros((0, 1)))


def test_a_picture_has_the_same_bytes_twice_and_names_its_lines() -> None:
    steps = np.array([50_000, 1_000_000])
    curves = {
        name: learning_curve({seed: (steps, np.array([-80.0, end + seed])) for seed in range(3)})
        for name, end in (("qmix", -30.0), ("mappo", -35.0))
    }
    drawn = picture("mpe/simple_spread", curves, "svg")
    assert drawn == picture("mpe/simple_spread", curves, "svg")
    text = drawn.decode()
    for words in ("mpe/simple_spread", "environment steps", "qmix (3 seeds; ends at \u221229.0)", "mappo", "1M"):
        assert words in text
    assert picture("x", curves, "png") == picture("x", curves, "png")
