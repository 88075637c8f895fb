"""How good probabilities were, on bars their model never saw."""

from __future__ import annotations

import numpy as np
import pandas as pd

from marl_pipeline.data.dataset import BoolArray, Float32Array, FloatArray, IntArray
from marl_pipeline.signals.calibration import log_loss
from marl_pipeline.signals.labels import UNKNOWN, Labels

ECE_BINS = 15


def out_of_sample(
    probabilities: Float32Array, covered: BoolArray, labels: Labels, start: int, prior: FloatArray
) -> dict[str, float]:
    """Scores [T', N, 3] probabilities of bars `start` on, where `covered` [T', N] and a label is known.

    Returns:
        log_loss; prior_log_loss, that of always saying the class shares of the fit sample; accuracy; ece
        (`expected_calibration_error`); ic (`information_coefficient` of up less down). Empty if nothing can be
        scored; ic is left out where no bar has two symbols to rank.
    """
    classes = labels.classes[start : start + len(covered)]
    known = covered & (classes != UNKNOWN)
    if not known.any():
        return {}
    said, happened = probabilities[known].astype(np.float64), classes[known]
    scores = {
        "log_loss": log_loss(np.log(np.maximum(said, 1e-12)), happened),
        "prior_log_loss": log_loss(np.log(np.broadcast_to(prior, said.shape)), happened),
        "accuracy": float((said.argmax(axis=1) == happened).mean()),
        "ece": expected_calibration_error(said, happened),
    }
    view = np.where(known, probabilities[..., 2] - probabilities[..., 0], np.nan)
    coefficient = information_coefficient(view, np.where(known, labels.forward[start : start + len(covered)], np.nan))
    return scores | ({"ic": coefficient} if np.isfinite(coefficient) else {})


def expected_calibration_error(probabilities: FloatArray, classes: IntArray, bins: int = ECE_BINS) -> float:
    """Mean gap between the confidence of the most likely class and how often it came, over equal bins of
    confidence weighted by their size (Guo et al. 2017, eq. 3). [B, C] and [B]."""
    confidence = probabilities.max(axis=1)
    hit = (probabilities.argmax(axis=1) == classes).astype(np.float64)
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, confidence, bins) - np.bincount(place, hit, bins)
    return float(np.abs(gap).sum() / len(classes))


def information_coefficient(view: FloatArray, outcome: FloatArray) -> float:
    """Mean over bars of the rank correlation across symbols of [T, N] views and outcomes (NaN: not there); NaN
    if no bar has two that differ."""
    both = np.isfinite(view) & np.isfinite(outcome)
    ranks = [pd.DataFrame(np.where(both, values, np.nan)).rank(axis=1).to_numpy() for values in (view, outcome)]
    count = both.sum(axis=1)
    some = count >= 2
    if not some.any():
        return float("nan")
    centred = [r[some] - np.nanmean(r[some], axis=1, keepdims=True) for r in ranks]
    covariance = np.nansum(centred[0] * centred[1], axis=1)
    scale = np.sqrt(np.nansum(centred[0] ** 2, axis=1) * np.nansum(centred[1] ** 2, axis=1))
    moves = scale > 0.0
    return float((covariance[moves] / scale[moves]).mean()) if moves.any() else float("nan")
