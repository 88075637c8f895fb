"""Which bars are for training, which for selecting, which are held out, and when what is refitted.

Bars are half-open index ranges `[start, stop)`. Between two ranges lie `embargo` bars that belong to neither, so
that no label of the earlier range reaches into the later one (Lopez de Prado 2018, ch. 7).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from marl_pipeline.config import SpansParams, WalkForwardParams
from marl_pipeline.errors import UserError


@dataclass(frozen=True)
class Span:
    """Bars `start` to `stop` - 1."""

    start: int
    stop: int

    def __len__(self) -> int:
        return max(self.stop - self.start, 0)


@dataclass(frozen=True)
class Spans:
    train: Span
    validation: Span
    test: Span


@dataclass(frozen=True)
class Window:
    """One step of the walk-forward: `tune` on the trailing bars, then trade `test` untouched."""

    index: int
    tune: Span
    test: Span


@dataclass(frozen=True)
class Refit:
    """A model fitted on bars `[0, fitted_until)` that is valid at the bars of `valid_bars`."""

    version: int
    fitted_until: int
    valid_bars: Span


def split(bars: int, params: SpansParams) -> Spans:
    """Cuts `bars` into train, validation and test.

    Raises:
        UserError: a span would be empty.
    """
    test_start = bars - round(bars * params.test_fraction)
    validation_start = test_start - round(bars * params.validation_fraction)
    spans = Spans(
        train=Span(0, validation_start - params.embargo),
        validation=Span(validation_start, test_start - params.embargo),
        test=Span(test_start, bars),
    )
    for name in ("train", "validation", "test"):
        span: Span = getattr(spans, name)
        if len(span) < 2:
            raise UserError(
                f"too little history: {bars} bars leave {len(span)} for the {name} span with "
                f"spans.embargo {params.embargo}; bring more bars or lower the spans' fractions"
            )
    return spans


def walk_forward_windows(bars: int, spans: SpansParams, params: WalkForwardParams) -> tuple[Window, ...]:
    """Cuts the test span into `len(params.windows)` equal parts, each preceded by its tuning bars and an embargo.

    Raises:
        UserError: a test part would have fewer than 2 bars, or a tuning part would start before the first bar.
    """
    test = split(bars, spans).test
    count = len(params.windows)
    if len(test) < 2 * count:
        raise UserError(f"too little history: {len(test)} test bars cannot be cut into {count} windows")
    edges = [test.start + len(test) * k // count for k in range(count + 1)]
    windows = []
    for index, (start, stop) in enumerate(itertools.pairwise(edges)):
        tune = Span(start - spans.embargo - params.tune_bars, start - spans.embargo)
        if tune.start < 0:
            raise UserError(
                f"too little history: window {index} needs {params.tune_bars} bars to tune on "
                f"(walk_forward.tune_bars) and has {tune.stop}"
            )
        windows.append(Window(index, tune, Span(start, stop)))
    return tuple(windows)


def expanding_refits(first: int, every: int, bars: int, embargo: int) -> tuple[Refit, ...]:
    """Fits at bar `first` and every `every` bars after it; each is valid until the next one takes over.

    Each is fitted on all bars that end `embargo` before it first is valid.
    """
    starts = range(first, bars, every)
    return tuple(
        Refit(version, start - embargo, Span(start, min(start + every, bars))) for version, start in enumerate(starts)
    )


def encoder_refits(bars: int, spans: SpansParams, walk_forward: WalkForwardParams, every: int) -> tuple[Refit, ...]:
    """The base fit on the train span, then refits at starts of walk-forward windows at least `every` bars apart.

    A window has one active version throughout, so refits fall on window starts only. Version 0 is valid from
    the first bar until the first refit.
    """
    cut = split(bars, spans)
    starts = []
    last = cut.test.start
    for window in walk_forward_windows(bars, spans, walk_forward)[1:]:
        if window.test.start - last >= every:
            starts.append(window.test.start)
            last = window.test.start
    edges = [0, *starts, bars]
    fitted = [cut.train.stop, *(start - spans.embargo for start in starts)]
    return tuple(
        Refit(version, until, Span(begin, end))
        for version, (until, begin, end) in enumerate(zip(fitted, edges, edges[1:], strict=False))
    )


def active_version(refits: tuple[Refit, ...], bar: int) -> Refit:
    """Returns the fit that is valid at `bar`."""
    for refit in refits:
        if refit.valid_bars.start <= bar < refit.valid_bars.stop:
            return refit
    raise ValueError(f"no fit is valid at bar {bar}; they are valid from {refits[0].valid_bars.start}")
