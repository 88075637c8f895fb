"""The embedding table: what one fit of the encoder says of every bar and symbol, computed once."""

from __future__ import annotations

import numpy as np
import torch

from marl_pipeline.data.dataset import Embeddings, Float32Array
from marl_pipeline.data.windows import Refit, Span, Window
from marl_pipeline.encoders.encoder import Encoder
from marl_pipeline.encoders.source import Source

ROWS = 2048
"""Windows per forward pass, about."""


@torch.no_grad()
def encode(encoder: Encoder, source: Source, span: Span) -> Float32Array:
    """[T', N, D] embeddings of the bars of `span`, in steps of float16 (what the table on disk holds).

    Every pass has the same number of bars, the last one padded, so bits do not depend on how many are asked.
    """
    encoder.eval()
    per_pass = max(1, ROWS // source.features.shape[1])
    bars = torch.arange(span.start, span.stop, device=source.device)
    padded = torch.nn.functional.pad(bars, (0, -len(bars) % per_pass), value=span.start)
    parts = [encoder(source.at(chunk))[0].to(torch.float16).cpu() for chunk in torch.split(padded, per_pass)]
    return torch.cat(parts)[: len(bars)].numpy().astype(np.float32)


def table(encoder: Encoder, source: Source, refit: Refit, span: Span) -> Embeddings:
    """The embeddings of one version over `span`."""
    return Embeddings(refit.version, refit.fitted_until, span.start, encode(encoder, source, span))


def table_span(refit: Refit, windows: tuple[Window, ...]) -> Span:
    """The bars that need version `refit`: all until it hands over for the base fit; for a later one, from the
    first tuning bar of the first window it serves."""
    if refit.version == 0:
        return refit.valid_bars
    served = next(window for window in windows if window.test.start >= refit.valid_bars.start)
    return Span(served.tune.start, refit.valid_bars.stop)
