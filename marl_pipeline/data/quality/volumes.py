"""What the volumes say by themselves: runs that do not change, and a newest bar that was not over."""

from __future__ import annotations

import numpy as np

from marl_pipeline.data.dataset import BoolArray, FloatArray, IntArray
from marl_pipeline.data.quality.table import SortedBars

CHANCE = 1e-6
"""A run of equal volumes is chance unless it is less likely than this."""
UNSEEN_PAIRS, UNSEEN_EQUAL = 100.0, 1.0
"""What is taken to have been seen of a symbol before its first bar: pairs of bars, and how many had equal volumes."""
USUAL_BARS, LEAST_BARS = 60, 20
"""Earlier bars that a newest bar is compared with: at most, and at least."""
UNFINISHED = 0.5
"""A newest bar below this share of the lowest earlier volume is taken to be unfinished."""


def run_length(same: BoolArray) -> IntArray:
    """[m] how many True in a row end here."""
    here = np.arange(len(same))
    return here - np.maximum.accumulate(np.where(same, -1, here))


def constant_volume(bars: SortedBars, usable: BoolArray, least: int) -> tuple[BoolArray, IntArray]:
    """[n] bars that end a run of `least` or more equal volumes above zero that is not chance, and how long the run is.

    A symbol that trades one lot at a time repeats itself often: the chance of a run is reckoned from the share of equal
    pairs among the symbol's bars before the run.
    """
    rows = np.flatnonzero(usable & (bars.values["volume"] > 0) & np.isfinite(bars.values["volume"]))
    flag, length = np.zeros(len(bars), dtype=bool), np.zeros(len(bars), dtype=np.int64)
    if not len(rows):
        return flag, length
    symbol, volume = bars.symbol[rows], bars.values["volume"][rows]
    pair = np.append(False, symbol[1:] == symbol[:-1])
    same = np.append(False, volume[1:] == volume[:-1]) & pair
    run = run_length(same)
    first = np.maximum.accumulate(np.where(pair, 0, np.arange(len(rows))))
    before = np.arange(len(rows)) - run  # the row that begins the run
    seen = np.cumsum(same)
    equal = seen[before] - seen[first]
    share = (equal + UNSEEN_EQUAL) / (before - first + UNSEEN_PAIRS)
    flag[rows] = (run + 1 >= least) & (run * np.log(share) < np.log(CHANCE))
    length[rows] = run + 1
    return flag, length


def unfinished_bars(bars: SortedBars, usable: BoolArray) -> tuple[BoolArray, FloatArray]:
    """[n] bars at the newest stamp of all whose volume is below UNFINISHED of the lowest of the symbol's bars before
    it (of the same hour of the day where bars are hourly), and the share of that lowest volume.

    A session that the calendar cuts short is compared by the hour.
    """
    flag, share = np.zeros(len(bars), dtype=bool), np.full(len(bars), np.nan)
    volume = bars.values["volume"]
    rows = np.flatnonzero(usable & (volume >= 0) & np.isfinite(volume))
    if not len(rows):
        return flag, share
    if bars.hourly:
        since_open = bars.stamp[rows] - bars.opens[bars.session[rows]]
        rows = rows[since_open == since_open[np.argmax(bars.stamp[rows])]]
        rate = volume
    else:
        length = (bars.days.close - bars.days.open) / np.timedelta64(1, "h")
        rate = volume / length[bars.session]
    newest = bars.stamp[np.flatnonzero(usable)].max()
    begins = np.searchsorted(bars.symbol[rows], bars.symbol[rows], side="left")
    for place in np.flatnonzero(bars.stamp[rows] == newest):
        earlier = rows[max(begins[place], place - USUAL_BARS) : place]
        lowest = rate[earlier].min() if len(earlier) >= LEAST_BARS else 0.0
        if lowest > 0:
            share[rows[place]] = rate[rows[place]] / lowest
    with np.errstate(invalid="ignore"):
        flag = share < UNFINISHED
    return flag, share
