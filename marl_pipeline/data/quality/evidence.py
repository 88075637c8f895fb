"""What a large step of a price was: a split, a bad print, a step that nothing marks (a spin-off, a special dividend) or
news. One model of the evidence, as densities of what the bar shows under each.

The evidence: how near the gap is to a split ratio beside what the symbol moves on a normal night, how calm the bar is
after it, its range, and its volume in shares and in money beside the usual. All of it is known on the bar itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marl_pipeline.data.dataset import FloatArray

FORWARD: dict[float, float] = {
    2: 0.4, 3 / 2: 0.2, 5 / 4: 0.06, 4 / 3: 0.006, 3: 0.09, 4: 0.06, 5: 0.03, 10: 0.03, 20: 0.01, 5 / 2: 0.01,
    5 / 3: 0.005, 7 / 2: 0.002, 6: 0.01, 7: 0.005, 8: 0.01, 15: 0.005, 25: 0.002, 50: 0.002, 100: 0.001,
}  # fmt: skip
REVERSE: dict[float, float] = {
    2: 0.015, 3: 0.015, 4: 0.02, 5: 0.025, 6: 0.01, 7: 0.005, 8: 0.015, 10: 0.03, 12: 0.005, 15: 0.01, 20: 0.015,
    25: 0.008, 30: 0.005, 40: 0.004, 50: 0.004, 100: 0.003,
}  # fmt: skip
"""New shares for one old (old for one new), and how many of a hundred splits are like that, about."""

SPLIT, BAD_PRINT, UNMARKED, NEWS = range(4)
RATES = {SPLIT: 1 / 1000, BAD_PRINT: 1 / 5000, UNMARKED: 1 / 6_000}
"""How often a bar of a symbol is one, before anything of it is seen."""
NEWS_AT, NEWS_RATE, NEWS_TAIL = 5.0, 1 / 400, 3.0
"""A bar moves by more than NEWS_AT standard deviations on news at that rate, beyond that by a Pareto law with this
tail."""
NEWS_WEIGHT = 500.0
"""How many symbols that rate is worth beside those seen at the same bar: on some days whole sectors have news."""
PRINT_SPAN = 10.0
"""Span of the log factor of a bad print; SLIPS of them are by a power of ten."""
SLIPS, SLIP_WIDTH = 0.3, 0.02
UNMARKED_FALL, UNMARKED_SPAN, UNMARKED_FAR = 0.2, 2.5, 0.1
"""An unmarked step falls by this much on average, in log price; UNMARKED_FAR of them by anything up to the span."""


@dataclass(frozen=True)
class Evidence:
    """[m] of each step, in log units; NaN where the source does not show it.

    Attributes:
        step: close to close, less the market's and what the corporate actions explain.
        gap: close to open, likewise.
        deviation: standard deviation of the symbol's steps on such bars.
        moving: other symbols that move by more than NEWS_AT deviations the same way at the same bar.
        others: other symbols with a bar.
        span: log of the bar's range over its usual one.
        shares, money: log of the volume over the usual one, in shares and times the price.
    """

    step: FloatArray
    gap: FloatArray
    deviation: FloatArray
    moving: FloatArray
    others: FloatArray
    span: FloatArray
    shares: FloatArray
    money: FloatArray


@dataclass(frozen=True)
class Judgement:
    """[m] probabilities of each explanation [m, 4], the likeliest split ratio, and whether the volume confirms it."""

    probability: FloatArray
    ratio: FloatArray
    confirmed: FloatArray


def judge(seen: Evidence, tolerance: float) -> Judgement:
    """Weighs the explanations of each step.

    Args:
        tolerance: how near to a ratio (as a log) a split may always be.
    """
    ratios = np.array([*FORWARD, *(1.0 / old for old in REVERSE)])
    prior = np.array([*FORWARD.values(), *REVERSE.values()])
    prior = np.log(prior / prior.sum())
    open_seen = np.isfinite(seen.gap)
    gap = np.where(open_seen, seen.gap, seen.step)
    rest = np.where(open_seen, seen.step - seen.gap, 0.0)
    night = np.maximum(np.where(open_seen, 0.56, 0.74) * seen.deviation, 0.5 * tolerance)
    calm = np.logaddexp(
        np.log(0.85) + _student(rest, 0.85 * seen.deviation), np.log(0.15) + _student(rest, 2.5 * seen.deviation)
    )
    wild = _student(rest, 0.8 * seen.deviation + 0.3 * np.abs(gap))
    usual_span, wide_span = _ordinary(seen.span, 0.05, 0.4), _heavy(seen.span, 0.8, 0.45)
    by_ratio = prior + _student(gap[:, None] + np.log(ratios), night[:, None])
    best = by_ratio.argmax(axis=1)
    stays = np.abs(seen.step + np.log(ratios[best])) < 0.5 * np.abs(np.log(ratios[best]))
    raw, adjusted = _ordinary(seen.money, 0.15, 0.5), _heavy(seen.shares, 0.1, 0.3)
    volume = np.logaddexp(np.log(0.85) + raw, np.log(0.15) + adjusted)
    slips = np.stack([_student(np.abs(gap) - k * np.log(10.0), SLIP_WIDTH) for k in (1, 2, 3)]).max(axis=0)
    factor = np.logaddexp(np.log(1 - SLIPS) - np.log(PRINT_SPAN), np.log(SLIPS / 6) + slips)
    least = NEWS_AT * seen.deviation
    rate = (NEWS_RATE * NEWS_WEIGHT + seen.moving) / (NEWS_WEIGHT + seen.others)
    beyond = np.log(np.maximum(np.abs(gap) / least, 1.0))
    pareto = np.log(rate * NEWS_TAIL / least / 2) - (NEWS_TAIL + 1) * beyond
    near = np.log(1.0 - UNMARKED_FAR) - np.log(UNMARKED_FALL) - np.abs(gap) / UNMARKED_FALL
    fall = np.logaddexp(near, np.log(UNMARKED_FAR / UNMARKED_SPAN))
    fall = np.where((gap < 0.0) & (gap > -UNMARKED_SPAN), fall, -np.inf)
    logs = np.stack(
        [
            np.where(stays, np.log(RATES[SPLIT]), -np.inf) + by_ratio.max(axis=1) + calm + usual_span + volume,
            np.log(RATES[BAD_PRINT]) + factor + calm + usual_span + _heavy(seen.shares, 0.0, 0.3),
            np.log(RATES[UNMARKED]) + fall + calm + _heavy(seen.span, 0.3, 0.45) + _heavy(seen.money, 0.7, 0.5),
            pareto + wild + wide_span + _heavy(seen.money, 1.1, 0.6),
        ],
        axis=1,
    )
    probability = np.exp(logs - np.logaddexp.reduce(logs, axis=1, keepdims=True))
    return Judgement(probability, ratios[best], np.where(np.isfinite(seen.money), raw - adjusted, 0.0))


def after(money: FloatArray) -> FloatArray:
    """[m] log odds of a split over news from the volume of the bar after, over the usual one in money: news goes on.
    Halved, since volume of one bar and the next is one piece of evidence and a half."""
    return 0.5 * (_heavy(money, 0.05, 0.33) - _heavy(money, 0.55, 0.4))


def _student(x: FloatArray, scale: FloatArray | float) -> FloatArray:
    """Log density of Student's t with 3 degrees of freedom."""
    log: FloatArray = np.log(2.0 / (np.pi * np.sqrt(3.0))) - np.log(scale) - 2.0 * np.log1p((x / scale) ** 2 / 3.0)
    return log


def _heavy(x: FloatArray, centre: float, scale: float) -> FloatArray:
    """The same around a centre, 0 where nothing is seen."""
    return np.where(np.isfinite(x), _student(np.nan_to_num(x) - centre, scale), 0.0)


def _ordinary(x: FloatArray, centre: float, scale: float) -> FloatArray:
    """Log density of an ordinary day, with thinner tails than that of news: one in ten is twice as wide."""
    z = (np.nan_to_num(x) - centre) / scale
    narrow, wide = np.log(0.9) - 0.5 * z**2, np.log(0.1 / 2.0) - 0.125 * z**2
    return np.where(np.isfinite(x), np.logaddexp(narrow, wide) - np.log(scale * np.sqrt(2.0 * np.pi)), 0.0)
