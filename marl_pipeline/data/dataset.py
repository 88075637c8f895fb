"""The values that pass between the stages: aligned bars, the training data set, time spans.

Dims: `T` bars, `N` symbols (sorted by name), `F` features, `R` regime figures, `C` macro figures, `S` sentiment
figures. Row `t` of every array is known at the close of bar `t`, never before and needs nothing after.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
TimeArray = NDArray[np.datetime64]


@dataclass(frozen=True)
class Panel:
    """Bars of all symbols on one time grid.

    Attributes:
        symbols: N names, sorted.
        timestamps: [T] datetime64[us], UTC, bar start, ascending.
        known_at: [T] datetime64[us], UTC, the moment the bar is complete (the exchange close for daily bars).
        session: [T] index of the exchange session a bar belongs to, counted from 0, ascending.
        open, high, low, close, volume: [T, N] float64, NaN where the symbol has no bar. Close-only sources have
            NaN in `open`, `high`, `low` throughout; those without volume have NaN in `volume`.
        tradable: [T, N] the bar exists, is not quarantined, and the symbol is listed and in the index.
    """

    symbols: tuple[str, ...]
    timestamps: TimeArray
    known_at: TimeArray
    session: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    tradable: BoolArray

    @property
    def has_range(self) -> bool:
        """Whether the source gives open, high and low at all."""
        return bool(np.isfinite(self.high).any())

    @property
    def has_volume(self) -> bool:
        return bool(np.isfinite(self.volume).any())


@dataclass(frozen=True)
class Dataset:
    """Everything the learners and the simulator read: the output of `build_features`.

    Attributes:
        panel: the bars; quarantined ones have `tradable` False.
        features: [T, N, F] float32, scaled with trailing windows and clipped; 0 where the bar's own look-back is
            not there.
        valid: [T, N] the bar and those of the window before it have their look-backs: it may be learned from.
        regime: [T, R] float32, scaled like the features.
        macro: [T, C] float32, scaled; C is 0 without a macro file. The same for sentiment: [T, N, S].
        sector: [N] index into `sectors`; every symbol is in sector 0 ("unknown") without a sector map.
        benchmark: [T] float64 level of the benchmark at each bar; NaN before it is first known.
        sessions_per_year: of the exchange calendar, for annualising.
    """

    panel: Panel
    feature_names: tuple[str, ...]
    features: Float32Array
    valid: BoolArray
    regime_names: tuple[str, ...]
    regime: Float32Array
    macro_names: tuple[str, ...]
    macro: Float32Array
    sentiment_names: tuple[str, ...]
    sentiment: Float32Array
    sectors: tuple[str, ...]
    sector: IntArray
    benchmark: FloatArray
    benchmark_name: str
    sessions_per_year: float

    @property
    def bars(self) -> int:
        return len(self.panel.timestamps)


@dataclass(frozen=True)
class Signals:
    """Calibrated class probabilities of the supervised models, each fitted on bars before the one it is for.

    Attributes:
        models: M model names.
        probabilities: [T, N, M, 3] float32 in the order down, flat, up; 1/3 where no model is valid.
        available: [T, N] a fitted model is valid and so is the row.
    """

    models: tuple[str, ...]
    probabilities: Float32Array
    available: BoolArray


@dataclass(frozen=True)
class Embeddings:
    """The market as one fit of the encoder sees it, from bar `start` on.

    Attributes:
        version: 0 is the base fit (train span only); k is the k-th refit.
        fitted_until: the first bar that the fit did not see.
        start: bar index of the first row.
        values: [T', N, D] float32; zero where the row is not valid.
    """

    version: int
    fitted_until: int
    start: int
    values: Float32Array
