"""Temperature scaling: one number that makes a classifier's confidence mean what it says.

Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks", section 4.2.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from marl_pipeline.data.dataset import FloatArray, IntArray

BOUNDS = (0.05, 20.0)


def log_softmax(logits: FloatArray) -> FloatArray:
    """[..., C] -> [..., C]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalised: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def log_loss(log_probabilities: FloatArray, classes: IntArray) -> float:
    """Mean negative log probability of what happened; [B, C] and [B]."""
    return float(-np.take_along_axis(log_probabilities, classes[:, None], axis=1).mean())


def fit_temperature(logits: FloatArray, classes: IntArray) -> float:
    """The T within `BOUNDS` for which softmax(logits / T) has the least log loss on [B, C] logits the model was
    not fitted on. The loss is convex in 1 / T, so a bounded search finds it."""

    def loss(log_temperature: float) -> float:
        return log_loss(log_softmax(logits / np.exp(log_temperature)), classes)

    found = minimize_scalar(loss, bounds=(np.log(BOUNDS[0]), np.log(BOUNDS[1])), method="bounded")
    return float(np.exp(found.x))
