from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marl_pipeline.checkpoint import FileCheckpointer, NoCheckpoint
from marl_pipeline.config import PretrainEncoderParams
from marl_pipeline.data.dataset import Dataset
from marl_pipeline.data.windows import Refit, Span, encoder_refits, split, walk_forward_windows
from marl_pipeline.encoders import pretrain, table
from marl_pipeline.encoders.encoder import Encoder
from marl_pipeline.encoders.masked import draw_mask
from marl_pipeline.encoders.pretrain import EncoderVersion, fit_encoder_versions, learnable, schedule
from marl_pipeline.encoders.source import Source
from marl_pipeline.errors import UserError
from marl_pipeline.progress import silent
from tests.learning import OverSeeds
from tests.signals.learnable_market import (
    SPANS,
    WALK_FORWARD,
    WINDOW,
    InterruptAfter,
    InterruptedFitError,
    encoder_params,
    learnable_market,
    same,
    with_noise_after,
)

CPU = torch.device("cpu")


def versions_of(
    dataset: Dataset, params: PretrainEncoderParams | None = None, **changes: Any
) -> tuple[EncoderVersion, ...]:
    arguments: dict[str, Any] = {
        "window": WINDOW,
        "spans": SPANS,
        "walk_forward": WALK_FORWARD,
        "seed": 0,
        "device": CPU,
        "on_step": silent,
        "checkpoint": NoCheckpoint(),
    }
    return tuple(fit_encoder_versions(dataset, params or encoder_params(), **(arguments | changes)))


@pytest.fixture(scope="module")
def market() -> Dataset:
    return learnable_market()


@pytest.fixture(scope="module")
def versions(market: Dataset) -> tuple[EncoderVersion, ...]:
    return versions_of(market)


def test_pre_training_lowers_the_held_out_loss(market: Dataset, over_seeds: OverSeeds) -> None:
    def left(seed: int) -> float:
        held_out = versions_of(market, encoder_params(steps=150), seed=seed)[0].held_out
        return held_out["held_out_loss"] / held_out["untrained_held_out_loss"]

    over_seeds(left, at_most=0.9)


def test_there_is_one_version_per_scheduled_fit(versions: tuple[EncoderVersion, ...]) -> None:
    assert tuple(one.refit for one in versions) == encoder_refits(400, SPANS, WALK_FORWARD, 50)
    assert len(versions) == 2
    assert [len(one.curves[0]["y"]) for one in versions] == [30, 10]


def test_each_table_covers_the_bars_that_need_it(versions: tuple[EncoderVersion, ...]) -> None:
    windows = walk_forward_windows(400, SPANS, WALK_FORWARD)
    base, refit = versions
    assert (base.embeddings.start, len(base.embeddings.values)) == (0, windows[1].test.start)
    assert refit.embeddings.start == windows[1].tune.start
    assert refit.embeddings.start + len(refit.embeddings.values) == 400
    assert base.embeddings.fitted_until == split(400, SPANS).train.stop
    assert refit.embeddings.fitted_until == windows[1].test.start - SPANS.embargo


def test_a_later_version_starts_where_its_first_window_tunes() -> None:
    windows = walk_forward_windows(400, SPANS, WALK_FORWARD)
    assert table.table_span(Refit(1, 300, Span(windows[0].test.start, 400)), windows) == Span(
        windows[0].tune.start, 400
    )


def test_rows_that_are_not_valid_are_zero_and_the_others_are_not(
    market: Dataset, versions: tuple[EncoderVersion, ...]
) -> None:
    for one in versions:
        rows = slice(one.embeddings.start, one.embeddings.start + len(one.embeddings.values))
        assert np.array_equal((one.embeddings.values != 0).any(axis=-1), market.valid[rows])
        assert one.embeddings.values.dtype == np.float32
        assert np.array_equal(one.embeddings.values, one.embeddings.values.astype(np.float16).astype(np.float32))


def test_a_refit_keeps_the_meaning_of_the_embedding(market: Dataset, over_seeds: OverSeeds) -> None:
    def cosine(seed: int) -> float:
        base, refit = (one.embeddings for one in versions_of(market, seed=seed))
        common = base.values[refit.start :]
        again = refit.values[: len(common)]
        assert not np.array_equal(common, again)
        there = (common != 0).any(axis=-1)
        lengths = np.linalg.norm(common, axis=-1) * np.linalg.norm(again, axis=-1)
        return float(((common * again).sum(-1)[there] / lengths[there]).mean())

    over_seeds(cosine, at_least=0.9)


def test_an_embedding_does_not_depend_on_how_many_bars_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass has the same shape: float16 hides most of the bits that would differ, but not all."""
    monkeypatch.setattr(table, "ROWS", 100)
    dataset, params = learnable_market(300, 2, 15), encoder_params(width=32, embedding=128)
    source = Source.of(dataset, 24, params, CPU)
    torch.manual_seed(0)
    encoder = Encoder(24, 15, params)
    shapes: list[torch.Size] = []
    encoder.register_forward_hook(lambda module, given, result: shapes.append(result[0].shape))
    every = table.encode(encoder, source, Span(0, 300))
    for start, stop in ((299, 300), (100, 101), (100, 153), (0, 299)):
        assert np.array_equal(table.encode(encoder, source, Span(start, stop)), every[start:stop])
    assert set(shapes) == {torch.Size((50, 2, 128))}


@pytest.mark.parametrize("offset", [-1, 0, 30, 115])
def test_no_embedding_sees_the_future(market: Dataset, versions: tuple[EncoderVersion, ...], offset: int) -> None:
    """Bars after t may hold anything: what is valid at t says the same of every bar up to t."""
    bar = split(400, SPANS).test.start + offset
    after = versions_of(with_noise_after(market, bar))
    for one, other in zip(versions, after, strict=True):
        if one.refit.fitted_until > bar:
            continue
        assert same(one.weights, other.weights)
        seen = bar + 1 - one.embeddings.start
        assert np.array_equal(one.embeddings.values[:seen], other.embeddings.values[:seen])
        if one.refit.valid_bars.stop > bar + 10:
            assert not np.array_equal(one.embeddings.values, other.embeddings.values)


def test_the_base_fit_reads_the_train_span_alone(market: Dataset, versions: tuple[EncoderVersion, ...]) -> None:
    train = split(400, SPANS).train
    assert same(versions[0].weights, versions_of(with_noise_after(market, train.stop - 1))[0].weights)
    assert not same(versions[0].weights, versions_of(with_noise_after(market, train.stop - 20))[0].weights)


def test_no_target_lies_beyond_the_bars_of_the_fit(market: Dataset) -> None:
    source = Source.of(market, WINDOW, encoder_params(), CPU)
    eligible = learnable(source, until=250, horizon=3)
    assert int(eligible.max()) + 3 == 249
    assert bool(source.valid[eligible].any(dim=1).all())
    assert len(learnable(source, until=2, horizon=3)) == 0


def test_forecast_targets_are_the_bars_ahead(market: Dataset) -> None:
    source = Source.of(market, WINDOW, encoder_params(), CPU)
    bars = torch.tensor([100, 131])
    target, known = source.ahead(bars, 3)
    assert torch.equal(target[..., :-1], torch.from_numpy(market.features[[103, 134]]))
    assert known[0].all()
    assert not known[1, 1]  # its bar is missing
    change = np.log(market.panel.close)
    own = np.diff(change, axis=0)[40:100, 0]
    expected = (change[103, 0] - change[100, 0]) / (own.std() * np.sqrt(3))
    assert float(target[0, 0, -1]) == pytest.approx(expected, abs=1e-3)


def test_the_cross_section_of_a_bar_is_its_window(market: Dataset) -> None:
    source = Source.of(market, WINDOW, encoder_params(), CPU)
    given = source.at(torch.tensor([2, 200]))
    assert np.array_equal(given.windows[1].numpy(), market.features[200 - WINDOW + 1 : 201].transpose(1, 0, 2))
    assert not given.valid[0].any()


def test_the_mask_hides_the_fraction_asked_for() -> None:
    mask = draw_mask(torch.Size((20, 30, 24, 10)), 0.25, torch.Generator().manual_seed(0))
    assert float(mask.float().mean()) == pytest.approx(0.25, abs=0.01)
    whole = mask.all(dim=-1).float().mean()
    assert 0.1 < float(whole) < 0.16


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
def test_an_interrupted_fit_ends_in_the_same_bits(
    market: Dataset,
    versions: tuple[EncoderVersion, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: int,
) -> None:
    """Before the first checkpoint at step 12, between two, at the end of a version and in the next one."""
    monkeypatch.setattr(pretrain, "CHECKPOINT_EVERY", 12)
    with pytest.raises(InterruptedFitError):
        versions_of(market, on_step=InterruptAfter(calls), checkpoint=FileCheckpointer(tmp_path))
    resumed = versions_of(market, checkpoint=FileCheckpointer(tmp_path))
    for one, other in zip(versions, resumed, strict=True):
        assert same(one.weights, other.weights)
        assert np.array_equal(one.embeddings.values, other.embeddings.values)
        assert (one.held_out, one.curves) == (other.held_out, other.curves)


def test_the_seed_decides_the_bits(market: Dataset, versions: tuple[EncoderVersion, ...]) -> None:
    torch.rand(7)  # the global generator has no say
    assert np.array_equal(versions[0].embeddings.values, versions_of(market)[0].embeddings.values)
    assert not np.array_equal(versions[0].embeddings.values, versions_of(market, seed=1)[0].embeddings.values)


def test_without_refit_steps_the_weights_stay(market: Dataset) -> None:
    base, refit = versions_of(market, encoder_params(refit_steps=0))
    assert same(base.weights, refit.weights)


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    shares = [schedule(step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == 1.0
    assert 0 < shares[-1] < 0.01
    assert schedule(0, 1) == 1.0


def test_wrong_sizes_are_refused(market: Dataset) -> None:
    with pytest.raises(UserError, match="width 9 must be even"):
        versions_of(market, encoder_params(width=9, heads=3))


def test_a_train_span_that_teaches_nothing_is_refused(market: Dataset) -> None:
    valid = market.valid.copy()
    valid[:250] = False
    with pytest.raises(UserError, match="too little history"):
        versions_of(replace(market, valid=valid))
