import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from marl_pipeline.signals.calibration import BOUNDS, fit_temperature, log_loss, log_softmax
from marl_pipeline.signals.labels import UNKNOWN, Labels
from marl_pipeline.signals.scores import expected_calibration_error, information_coefficient, out_of_sample


def drawn(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and classes drawn from the very probabilities they state."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((rows, 3))
    sums = np.exp(log_softmax(logits)).cumsum(axis=1)
    return logits, (rng.random(rows)[:, None] > sums[:, :2]).sum(axis=1)


@pytest.mark.parametrize("overconfidence", [0.4, 1.0, 3.0])
def test_temperature_finds_how_overconfident_the_logits_are(overconfidence: float) -> None:
    logits, classes = drawn(40_000, 3)
    assert fit_temperature(logits * overconfidence, classes) == pytest.approx(overconfidence, rel=0.05)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10.0))
def test_temperature_never_worsens_the_loss_it_is_fitted_on(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits, classes = scale * rng.standard_normal((200, 3)), rng.integers(0, 3, 200)
    temperature = fit_temperature(logits, classes)
    assert BOUNDS[0] <= temperature <= BOUNDS[1]
    assert log_loss(log_softmax(logits / temperature), classes) <= log_loss(log_softmax(logits), classes) + 1e-6


def test_calibration_makes_confidence_honest() -> None:
    logits, classes = drawn(40_000, 4)
    raw = np.exp(log_softmax(3 * logits))
    scaled = np.exp(log_softmax(3 * logits / fit_temperature(3 * logits, classes)))
    assert expected_calibration_error(raw, classes) > 0.1
    assert expected_calibration_error(scaled, classes) < 0.02


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.5, 0.4], [0.2, 0.3, 0.5]])
    classes = np.array([0, 1, 1, 2])
    # Bin of 0.8: confidence 0.8, half right; bin of 0.5: confidence 0.5, all right.
    assert expected_calibration_error(probabilities, classes, bins=10) == pytest.approx((2 * 0.3 + 2 * 0.5) / 4)


def test_information_coefficient_is_the_mean_rank_correlation_of_the_bars() -> None:
    rng = np.random.default_rng(5)
    view, outcome = rng.standard_normal((2, 30, 8)).round(1)
    outcome[rng.random(outcome.shape) < 0.2] = np.nan
    expected = []
    for row, result in zip(view, outcome, strict=True):
        there = np.isfinite(result)
        expected.append(spearmanr(row[there], result[there]).statistic)
    assert information_coefficient(view, outcome) == pytest.approx(np.mean(expected))


def test_one_symbol_has_no_rank_correlation() -> None:
    assert np.isnan(information_coefficient(np.ones((5, 1)), np.ones((5, 1))))


def test_scores_count_only_rows_that_are_covered_and_have_a_label() -> None:
    classes = np.array([[0, 2], [1, UNKNOWN]])
    labels = Labels(classes, np.where(classes == UNKNOWN, np.nan, classes - 1.0), reach=1)
    probabilities = np.full((2, 2, 3), 1 / 3, dtype=np.float32)
    probabilities[0, 0] = [0.5, 0.25, 0.25]
    covered = np.array([[True, False], [False, True]])
    scores = out_of_sample(probabilities, covered, labels, 0, np.array([0.2, 0.4, 0.4]))
    assert scores["log_loss"] == pytest.approx(np.log(2))
    assert scores["prior_log_loss"] == pytest.approx(-np.log(0.2))
    assert scores["accuracy"] == 1.0
    assert "ic" not in scores


def test_nothing_to_score_gives_no_scores() -> None:
    labels = Labels(np.full((3, 2), UNKNOWN), np.full((3, 2), np.nan), reach=1)
    covered = np.ones((3, 2), dtype=bool)
    assert out_of_sample(np.full((3, 2, 3), 1 / 3, np.float32), covered, labels, 0, np.full(3, 1 / 3)) == {}
