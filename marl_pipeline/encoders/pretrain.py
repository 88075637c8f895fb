"""Fits the encoder and its refits, each on bars before it is valid, and encodes the market with each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from marl_pipeline.checkpoint import Checkpointer
from marl_pipeline.config import PretrainEncoderParams, SpansParams, WalkForwardParams
from marl_pipeline.data.dataset import Dataset, Embeddings
from marl_pipeline.data.windows import Refit, encoder_refits, walk_forward_windows
from marl_pipeline.encoders.masked import MaskedForecaster
from marl_pipeline.encoders.source import Source
from marl_pipeline.encoders.table import table, table_span
from marl_pipeline.errors import UserError
from marl_pipeline.progress import OnStep
from marl_pipeline.seeding import forked, stream

CHECKPOINT_EVERY = 25
REPORT_EVERY = 10
WARM_UP = 0.1
MAX_GRAD_NORM = 1.0
HELD_OUT_BARS = 32
HELD_OUT_EVERY = 4

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class EncoderVersion:
    """One fit of the encoder.

    Attributes:
        refit: what it saw and at which bars it is valid.
        weights: of the encoder alone.
        embeddings: its table.
        held_out: losses on bars after `fitted_until`, before (`untrained_...`) and after the fit; {} where the data
            end too soon. For the record: nothing is chosen by them.
        curves: {name, x, y} of the training losses.
    """

    refit: Refit
    weights: Weights
    embeddings: Embeddings
    held_out: dict[str, float]
    curves: list[dict[str, Any]]


def fit_encoder_versions(
    dataset: Dataset,
    params: PretrainEncoderParams,
    *,
    window: int,
    spans: SpansParams,
    walk_forward: WalkForwardParams,
    seed: int,
    device: torch.device,
    on_step: OnStep,
    checkpoint: Checkpointer,
) -> Iterator[EncoderVersion]:
    """Version 0 on the train span, then refits as `encoder_refits` schedules them, each going on from the weights
    before it for `refit_steps`, so that the embeddings drift little and policies read on.

    Yields one version at a time, so that only one table need be in memory. Ends in the same bits whether or not it
    was interrupted.

    Raises:
        UserError: no bar of the train span can be learned from, or heads do not divide the width.
    """
    if params.width % params.heads or params.width % 2:
        raise UserError(f"pretrain_encoder.width {params.width} must be even and a multiple of heads {params.heads}")
    source = Source.of(dataset, window, params, device)
    windows = walk_forward_windows(dataset.bars, spans, walk_forward)
    refits = encoder_refits(dataset.bars, spans, walk_forward, params.refit_every)
    with forked(seed, "encoder weights", device):
        model = MaskedForecaster(window, dataset.features.shape[-1], params).to(device)
    for refit in refits:
        steps = params.refit_steps if refit.version else params.steps
        before = _held_out(model, source, refit, seed)
        name = f"encoder version {refit.version + 1}/{len(refits)}"
        own = checkpoint.child(f"version_{refit.version}")
        losses = _fit(model, source, refit, steps, params, seed, name, on_step, own)
        after = _held_out(model, source, refit, seed)
        yield EncoderVersion(
            refit=refit,
            weights={key: value.detach().cpu().clone() for key, value in model.encoder.state_dict().items()},
            embeddings=table(model.encoder, source, refit, table_span(refit, windows)),
            held_out={f"untrained_{key}" if not refit.version else f"before_{key}": v for key, v in before.items()}
            | after,
            curves=[
                {"name": f"version_{refit.version}/{key}", "x": list(range(1, len(ys) + 1)), "y": ys}
                for key, ys in losses.items()
            ],
        )


def _fit(
    model: MaskedForecaster,
    source: Source,
    refit: Refit,
    steps: int,
    params: PretrainEncoderParams,
    seed: int,
    name: str,
    on_step: OnStep,
    checkpoint: Checkpointer,
) -> dict[str, list[float]]:
    """Trains `model` in place for `steps` minibatches of bars; gives the losses of each step."""
    eligible = learnable(source, refit.fitted_until, max(params.horizons))
    if not len(eligible):
        raise UserError(
            f"too little history: none of the first {refit.fitted_until} bars can be learned from by the encoder; "
            f"bring more bars or shorten build_features.scale_window"
        )
    optimizer = torch.optim.AdamW(
        model.parameters(), params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    curves: dict[str, list[float]] = {}
    done = 0
    state = checkpoint.load()
    if state is not None:
        model.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        curves, done = state["curves"], state["steps"]
    model.train()
    for step in range(done, steps):
        for group in optimizer.param_groups:
            group["lr"] = params.learning_rate * schedule(step, steps)
        metrics = _step(model, optimizer, source, eligible, params.bars_per_batch, seed, f"{refit.version}/{step}")
        for key, value in metrics.items():
            curves.setdefault(key, []).append(value)
        last = step + 1 == steps
        if last or (step + 1) % CHECKPOINT_EVERY == 0:
            checkpoint.save(
                {
                    "weights": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "curves": curves,
                    "steps": step + 1,
                }
            )
        if last or (step + 1) % REPORT_EVERY == 0:
            on_step(name, step + 1, steps, metrics)
    return curves


def _step(
    model: MaskedForecaster,
    optimizer: torch.optim.Optimizer,
    source: Source,
    eligible: Tensor,
    bars_per_batch: int,
    seed: int,
    name: str,
) -> dict[str, float]:
    """One update; its randomness depends on the seed and `name` alone, so that there is none to save."""
    generator = stream(seed, f"encoder step {name}", source.device)
    chosen = torch.randint(len(eligible), (bars_per_batch,), generator=generator, device=source.device)
    with forked(seed, f"encoder dropout {name}", source.device):
        losses = model.losses(source, eligible[chosen], generator)
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
    optimizer.step()
    return losses.as_metrics()


def learnable(source: Source, until: int, horizon: int) -> Tensor:
    """Bars with a valid symbol whose longest forecast target lies before bar `until`."""
    last = max(until - horizon, 0)
    return source.valid[:last].any(dim=1).nonzero().squeeze(1)


def schedule(step: int, steps: int) -> float:
    """Share of the learning rate: a linear warm-up, then half a cosine down to 0."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm + 1) / max(steps - warm + 1, 1)))


@torch.no_grad()
def _held_out(model: MaskedForecaster, source: Source, refit: Refit, seed: int) -> dict[str, float]:
    """Losses on every `HELD_OUT_EVERY`-th of the bars right after the fit, with one mask for all versions."""
    model.eval()
    stop = len(source.features) - max(model.horizons)
    bars = torch.arange(refit.fitted_until, stop, HELD_OUT_EVERY, device=source.device)[:HELD_OUT_BARS]
    if not len(bars) or not bool(source.valid[bars].any()):
        return {}
    losses = model.losses(source, bars, stream(seed, "encoder held out", source.device))
    return {f"held_out_{key}": value for key, value in losses.as_metrics().items()}
