"""How well the split rule works: events planted in real bars, and what `check` says of them.

Half of the symbols is for developing the rule, the other half for reporting on it. Nothing is tuned on the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from marl_pipeline.config import ValidateDataParams
from marl_pipeline.data.quality import check, clean
from marl_pipeline.errors import UserError

PRICES = ["open", "high", "low", "close"]
SPACING, EDGE = 420, 70
"""Bars between two events of a symbol, and before its first and after its last."""
SPIN_OFF = (0.7, 0.95)
"""What a spin-off leaves of the price."""
SLIPS = 0.4
"""Share of bad prints that are off by a power of ten."""
LATEST = 2
"""Bars after an event up to which a finding is about it."""

KINDS: Mapping[str, tuple[float, tuple[float, ...]]] = {
    "split 2:1": (25, (2.0,)),
    "split 3:2": (15, (1.5,)),
    "split 5:4": (5, (1.25,)),
    "split 3:1": (6, (3.0,)),
    "split 4:1 to 10:1": (8, (4.0, 5.0, 7.0, 10.0)),
    "reverse split": (11, (1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 8, 1 / 10, 1 / 20)),
    "spin-off": (6, ()),
    "bad print": (14, ()),
    "halt": (10, ()),
}
"""How often each kind is planted, and the ratios of splits."""


@dataclass(frozen=True)
class KindResult:
    """Of one kind: events planted, events that the split rule named, and those that had a bar hidden for any rule."""

    kind: str
    planted: int
    called_split: int
    hidden: int


@dataclass(frozen=True)
class SplitBench:
    """Recall: planted splits that are named; precision: findings of the rule that are about a planted split."""

    half: str
    seed: int
    symbols: int
    bars: int
    kinds: tuple[KindResult, ...]
    findings: int
    elsewhere: tuple[str, ...]

    @property
    def recall(self) -> float:
        splits = [each for each in self.kinds if "split" in each.kind]
        return sum(each.called_split for each in splits) / sum(each.planted for each in splits)

    @property
    def precision(self) -> float:
        right = sum(each.called_split for each in self.kinds if "split" in each.kind)
        return right / self.findings if self.findings else 1.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"recall": self.recall, "precision": self.precision}

    def lines(self) -> list[str]:
        """A table for a terminal."""
        rows = [f"{'kind':<20}{'planted':>9}{'named a split':>15}{'bar hidden':>12}"]
        rows += [f"{k.kind:<20}{k.planted:>9}{k.called_split:>15}{k.hidden:>12}" for k in self.kinds]
        planted = sum(each.planted for each in self.kinds)
        rows += [f"natural bars: {len(self.elsewhere)} findings{''.join(f'; {line}' for line in self.elsewhere[:5])}"]
        return [
            *rows,
            f"{planted} events in {self.bars:,} bars of {self.symbols} symbols (half '{self.half}', seed {self.seed}): "
            f"recall {self.recall:.4f}, precision {self.precision:.4f}",
        ]


def bench_splits(
    bars: pd.DataFrame, params: ValidateDataParams, *, calendar: str, seed: int, half: str = "report"
) -> SplitBench:
    """Plants events in every other symbol and checks the bars.

    Args:
        bars: canonical daily bars, adjusted for splits, with open, high, low and volume.
        half: `develop` or `report`: the symbols at even or at odd places of the alphabet.

    Raises:
        UserError: too few bars to plant anything in.
    """
    names = np.sort(bars["symbol"].unique())[0 if half == "develop" else 1 :: 2]
    chosen = bars[bars["symbol"].isin(names)].sort_values(["symbol", "timestamp"], ignore_index=True)
    planted, events = plant(chosen, np.random.default_rng(seed))
    if events.empty:
        raise UserError(f"no symbol has the {2 * EDGE + SPACING} bars that an event needs around it")
    result = check(planted, calendar=calendar, frequency="1Day", adjustment="split", params=params)
    found = result.findings[result.findings["rule"] == "split_like"]
    cleaned = clean(planted, result.quarantine)
    hidden = set(cleaned.loc[cleaned["quarantined"], ["symbol", "timestamp"]].itertuples(index=False, name=None))
    taken = np.zeros(len(found), dtype=bool)
    rows = []
    for kind in KINDS:
        own = events[events["kind"] == kind]
        called = 0
        for symbol, first, last in zip(own["symbol"], own["timestamp"], own["until"], strict=True):
            near = (found["timestamp"] >= first) & (found["timestamp"] <= last)
            about = (near & (found["symbol"] == symbol)).to_numpy()
            called += bool(about.any())
            taken |= about
        seen = sum((str(event.symbol), event.timestamp) in hidden for event in own.itertuples())
        rows.append(KindResult(kind, len(own), called, seen))
    others = found[~taken]
    lines = tuple(f"{row.symbol} {row.timestamp:%Y-%m-%d}: {row.detail}" for row in others.itertuples())
    return SplitBench(half, seed, len(names), len(planted), tuple(rows), len(found), lines)


def plant(bars: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bars with events, and the events: symbol, timestamp (of the event's bar), until (LATEST bars later), kind."""
    weights = np.array([weight for weight, _ in KINDS.values()])
    frames, events = [], []
    for symbol, frame in bars.groupby("symbol", sort=True):
        table = frame.reset_index(drop=True)
        table[[*PRICES, "volume"]] = table[[*PRICES, "volume"]].astype(np.float64)
        kept = np.ones(len(table), dtype=bool)
        for row in range(EDGE + int(rng.integers(0, SPACING)), len(table) - EDGE, SPACING):
            kind = str(rng.choice(list(KINDS), p=weights / weights.sum()))
            _event(table, kept, row, kind, rng)
            until = table["timestamp"][row + LATEST]
            events.append({"symbol": symbol, "timestamp": table["timestamp"][row], "until": until, "kind": kind})
        frames.append(table[kept])
    return pd.concat(frames, ignore_index=True), pd.DataFrame(events, columns=["symbol", "timestamp", "until", "kind"])


def _event(table: pd.DataFrame, kept: np.ndarray, row: int, kind: str, rng: np.random.Generator) -> None:
    """Changes `table` in place from `row` on; `kept` loses the rows of a halt."""
    price = np.ones(len(table))
    volume = np.ones(len(table))
    if "split" in kind:
        ratio = float(rng.choice(KINDS[kind][1]))
        price[row:], volume[row:] = 1.0 / ratio, ratio
        volume[row] *= np.exp(rng.normal(0.15, 0.35))
    elif kind == "spin-off":
        price[row:] = rng.uniform(*SPIN_OFF)
        volume[row : row + 3] = np.exp(rng.normal([1.0, 0.6, 0.3], 0.5))
    elif kind == "bad print":
        scale = np.exp(rng.choice([-1, 1]) * rng.uniform(0.25, 2.0))
        price[row] = rng.choice([0.01, 0.1, 10.0, 100.0]) if rng.random() < SLIPS else scale
    else:  # a halt: some bars are missing, and the price has moved when it trades again
        kept[row - int(rng.integers(3, 15)) : row] = False
        price[row:] = np.exp(rng.normal(0.0, 0.15))
        volume[row] = np.exp(rng.normal(1.2, 0.5))
    table[PRICES] = table[PRICES].to_numpy() * price[:, None]
    table["volume"] = table["volume"].to_numpy() * volume
