"""A few words for each finding: the figures that made it one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from marl_pipeline.data.dataset import IntArray
from marl_pipeline.data.hourly import PHASE_STEP
from marl_pipeline.data.quality.rules import Flags

MINUTES = int(PHASE_STEP / np.timedelta64(1, "m"))


def details(flags: Flags, rule: str, rows: IntArray) -> list[str]:
    """One line for each hit of `rule` at `rows`."""
    return WORDS[rule](flags, rows)


def _missing(flags: Flags, rows: IntArray) -> list[str]:
    return [", ".join(name for name in names if name) + " empty" for names in flags.figures["empty"][rows]]


def _prices(flags: Flags, rows: IntArray) -> list[str]:
    value = flags.bars.values
    columns = [value[name][rows] for name in ("open", "high", "low", "close")]
    return [f"open {o:.6g}, high {h:.6g}, low {low:.6g}, close {c:.6g}" for o, h, low, c in zip(*columns, strict=True)]


def _volume(flags: Flags, rows: IntArray) -> list[str]:
    return [f"volume {volume:.6g}" for volume in flags.bars.values["volume"][rows]]


def _zero_volume(flags: Flags, rows: IntArray) -> list[str]:
    never = flags.figures["never_traded"][rows]
    return ["no trade, nor any before it" if n else "no trade in this bar" for n in never]


def _constant_volume(flags: Flags, rows: IntArray) -> list[str]:
    volume, length = flags.bars.values["volume"][rows], flags.figures["constant"][rows]
    return [f"volume {v:.6g} for {n} bars in a row" for v, n in zip(volume, length, strict=True)]


def _missing_tail(flags: Flags, rows: IntArray) -> list[str]:
    end = pd.Timestamp(flags.figures["market_end"][0])
    form = "%Y-%m-%d %H:%M" if flags.bars.hourly else "%Y-%m-%d"
    return [
        f"its last bar is of {pd.Timestamp(stamp):{form}}, the market's of {end:{form}}: {n} expected "
        f"bar{'s' if n > 1 else ''} missing"
        for stamp, n in zip(flags.bars.stamp[rows], flags.figures["missing_after"][rows], strict=True)
    ]


def _unfinished(flags: Flags, rows: IntArray) -> list[str]:
    volume, share = flags.bars.values["volume"][rows], flags.figures["volume_share"][rows]
    return [f"volume {v:.6g}, {100 * s:.0f}% of the lowest before it" for v, s in zip(volume, share, strict=True)]


def _duplicate(flags: Flags, rows: IntArray) -> list[str]:
    conflict = flags.figures["conflict"][rows]
    return [f"{'other values than' if c else 'same values as'} the row that is used" for c in conflict]


def _order(flags: Flags, rows: IntArray) -> list[str]:
    return [f"row {row + 1} of the table comes after a later bar" for row in flags.bars.row[rows]]


def _off_calendar(flags: Flags, rows: IntArray) -> list[str]:
    if flags.bars.hourly:
        return ["outside the hours of the exchange"] * len(rows)
    value = flags.bars.values
    before = np.maximum(rows - 1, 0)
    copied = (rows > 0) & (flags.bars.symbol[before] == flags.bars.symbol[rows])
    copied &= value["close"][before] == value["close"][rows]
    return ["exchange closed" + (": a copy of the close before" if copy else "") for copy in copied]


def _off_grid(flags: Flags, rows: IntArray) -> list[str]:
    into = flags.bars.stamp[rows] - flags.bars.stamp[rows].astype("datetime64[h]")
    minutes = into // np.timedelta64(1, "m")
    market = flags.figures["market"][rows] * MINUTES
    stray = flags.figures["stray"][rows]
    return [
        f"starts at :{m:02d}, the market's bars at :{k:02d}" + ("; the symbol's other bars do not" if s else "")
        for m, k, s in zip(minutes, market, stray, strict=True)
    ]


def _gap(flags: Flags, rows: IntArray) -> list[str]:
    missing = flags.figures["missing_bars"][rows]
    return [f"{n} expected bar{'s' if n > 1 else ''} missing before this one" for n in missing]


def _stale(flags: Flags, rows: IntArray) -> list[str]:
    return [f"{n} equal closes in a row" for n in flags.figures["still"][rows]]


def _jump(flags: Flags, rows: IntArray) -> list[str]:
    moves, ratios = flags.figures["simple"][rows], flags.figures["ratio"][rows]
    return [
        f"{100 * move:+.1f}% in one bar" + (f", near a {_ratio(ratio)} split" if np.isfinite(ratio) else "")
        for move, ratio in zip(moves, ratios, strict=True)
    ]


def _split(flags: Flags, rows: IntArray) -> list[str]:
    bars, moves, lines = flags.bars, flags.moves, []
    assert moves is not None
    for row, step in zip(rows, moves.step_row[rows], strict=True):
        listed = flags.figures["listed_split"][step]
        size = f"{100 * moves.simple[step]:+.1f}% in one bar"
        if row != step:
            size = f"the step of {pd.Timestamp(bars.stamp[step]):%Y-%m-%d} stays, {size}"
        if listed != 1.0:
            lines.append(f"{size}, and data.corporate_actions lists a {_ratio(listed)} split that is not in the price")
        else:
            lines.append(f"{size}, like a {_ratio(moves.ratio[row])} split")
    return lines


def _ratio(ratio: float) -> str:
    for old in (1, 2, 3, 4):
        if ratio >= 1 and abs(ratio * old - round(ratio * old)) < 1e-9:
            return f"{round(ratio * old)}:{old}"
        if ratio < 1 and abs(old / ratio - round(old / ratio)) < 1e-9:
            return f"{old}:{round(old / ratio)}"
    return f"{ratio:.4g}:1"


def _coverage(flags: Flags, rows: IntArray) -> list[str]:
    return [f"{100 * share:.0f}% of the latest expected bars usable" for share in flags.figures["coverage"][rows]]


WORDS: dict[str, Callable[[Flags, IntArray], list[str]]] = {
    "missing_value": _missing,
    "non_positive_price": _prices,
    "ohlc_inconsistent": _prices,
    "negative_volume": _volume,
    "zero_volume": _zero_volume,
    "constant_volume": _constant_volume,
    "duplicate": _duplicate,
    "out_of_order": _order,
    "off_calendar": _off_calendar,
    "off_grid": _off_grid,
    "calendar_gap": _gap,
    "stale": _stale,
    "jump": _jump,
    "range_spike": _prices,
    "split_like": _split,
    "low_coverage": _coverage,
    "missing_tail": _missing_tail,
    "unfinished_bar": _unfinished,
}
