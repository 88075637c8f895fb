from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marl_pipeline.checkpoint import FileCheckpointer, NoCheckpoint
from marl_pipeline.config import SLSignalsParams
from marl_pipeline.data.dataset import Dataset, Signals
from marl_pipeline.data.windows import active_version, expanding_refits
from marl_pipeline.errors import UserError
from marl_pipeline.progress import silent
from marl_pipeline.signals.fit import FittedModel, fit_signals
from tests.learning import OverSeeds
from tests.signals.learnable_market import (
    WINDOW,
    InterruptAfter,
    InterruptedFitError,
    learnable_market,
    same,
    signal_params,
    with_noise_after,
)


def fitted(
    dataset: Dataset, params: SLSignalsParams | None = None, **changes: Any
) -> tuple[Signals, tuple[FittedModel, ...]]:
    arguments: dict[str, Any] = {
        "window": WINDOW,
        "embargo": 5,
        "seed": 0,
        "device": torch.device("cpu"),
        "on_step": silent,
        "checkpoint": NoCheckpoint(),
    }
    return fit_signals(dataset, params or signal_params(), **(arguments | changes))


@pytest.mark.parametrize(
    "model", ["MLP72", pytest.param("LSTM62", marks=pytest.mark.slow), pytest.param("GRU93", marks=pytest.mark.slow)]
)
def test_a_foreseeable_market_is_foreseen_out_of_sample(model: str, over_seeds: OverSeeds) -> None:
    params = signal_params(models=(model,), epochs=5, max_samples=1500, first_fit=400, refit_every=300)

    def worst_fit(seed: int) -> dict[str, float]:
        metrics = [one.metrics for one in fitted(learnable_market(700, 8), params, seed=seed)[1]]
        return {
            "nats below the prior": min(one["oos_prior_log_loss"] - one["oos_log_loss"] for one in metrics),
            "information coefficient": min(one["oos_ic"] for one in metrics),
        }

    over_seeds(worst_fit, at_least={"nats below the prior": 0.02, "information coefficient": 0.15})


def test_nothing_is_foreseen_where_features_and_returns_are_strangers(over_seeds: OverSeeds) -> None:
    dataset = learnable_market(700, 8)
    strangers = replace(dataset, features=learnable_market(700, 8, seed=5, gaps=False).features)

    def best_fit(seed: int) -> dict[str, float]:
        metrics = [one.metrics for one in fitted(strangers, signal_params(epochs=6, refit_every=200), seed=seed)[1]]
        return {
            "nats below ignorance": max(
                min(one["oos_prior_log_loss"], np.log(3)) - one["oos_log_loss"] for one in metrics
            ),
            "size of the information coefficient": max(abs(one["oos_ic"]) for one in metrics),
        }

    over_seeds(best_fit, at_most={"nats below ignorance": 0.01, "size of the information coefficient": 0.1})


def test_signals_are_valid_from_the_first_fit_on_valid_rows_only() -> None:
    dataset = learnable_market()
    signals, _ = fitted(dataset, signal_params(models=("MLP72", "GRU93")))
    assert signals.probabilities.shape == (400, 6, 2, 3)
    assert signals.probabilities.dtype == np.float32
    assert not signals.available[:150].any()
    assert np.array_equal(signals.available[150:], dataset.valid[150:])
    assert (signals.probabilities[~signals.available] == np.float32(1 / 3)).all()
    assert np.allclose(signals.probabilities.sum(axis=-1), 1.0, atol=1e-6)


@pytest.mark.parametrize("bar", [149, 160, 249, 260, 390])
def test_no_signal_sees_the_future(bar: int) -> None:
    dataset = learnable_market()
    params = signal_params(models=("MLP72", "LSTM62"))
    before, _ = fitted(dataset, params)
    after, _ = fitted(with_noise_after(dataset, bar), params)
    assert np.array_equal(before.probabilities[: bar + 1], after.probabilities[: bar + 1])
    assert np.array_equal(before.available[: bar + 1], after.available[: bar + 1])
    assert bar == 390 or not np.array_equal(before.probabilities, after.probabilities)


def test_a_model_is_made_of_bars_before_fitted_until_alone() -> None:
    """The embargo bars between fit and first word may hold anything."""
    dataset = learnable_market()
    _, before = fitted(dataset, embargo=20)
    for version, until in ((0, 130), (1, 230)):
        _, after = fitted(with_noise_after(dataset, until - 1), embargo=20)
        assert before[version].refit.fitted_until == until
        assert same(before[version].weights, after[version].weights)
        assert before[version].temperature == after[version].temperature
        _, touched = fitted(with_noise_after(dataset, until - 30), embargo=20)
        assert before[version].temperature != touched[version].temperature


def test_each_bar_has_one_active_version() -> None:
    _, models = fitted(learnable_market())
    refits = expanding_refits(150, 100, 400, 5)
    assert tuple(one.refit for one in models) == refits
    assert active_version(refits, 260).fitted_until == 245


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    dataset = learnable_market()
    first, second, other = (fitted(dataset, seed=seed)[0].probabilities for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fitted(learnable_market(200, 4), signal_params(first_fit=150, epochs=1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("calls", [1, 2, 4, 8, 11])
def test_an_interrupted_fit_ends_in_the_same_bits(tmp_path: Path, calls: int) -> None:
    dataset, params = learnable_market(), signal_params(models=("MLP72", "GRU93"), first_fit=250)
    whole, models = fitted(dataset, params)
    with pytest.raises(InterruptedFitError):
        fitted(dataset, params, on_step=InterruptAfter(calls), checkpoint=FileCheckpointer(tmp_path))
    resumed, again = fitted(dataset, params, checkpoint=FileCheckpointer(tmp_path))
    assert np.array_equal(whole.probabilities, resumed.probabilities)
    assert [one.metrics for one in models] == [one.metrics for one in again]


def test_a_resumed_fit_does_not_train_again(tmp_path: Path) -> None:
    dataset = learnable_market()
    fitted(dataset, checkpoint=FileCheckpointer(tmp_path))
    labels: list[str] = []
    fitted(
        dataset,
        checkpoint=FileCheckpointer(tmp_path),
        on_step=lambda label, step, total, metrics: labels.append(label),
    )
    assert labels
    assert not [name for name in labels if "out of sample" not in name]


def test_a_refit_without_enough_rows_stays_silent() -> None:
    dataset = learnable_market(400, 6)
    valid = dataset.valid.copy()
    valid[:120] = False
    signals, models = fitted(replace(dataset, valid=valid))
    assert [one.refit.version for one in models] == [1, 2]
    assert not signals.available[:250].any()


def test_too_little_history_is_refused() -> None:
    with pytest.raises(UserError, match=r"too little history.*first_fit 150"):
        fitted(learnable_market(140, 3))
