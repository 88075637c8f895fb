"""The minute of the hour that hourly bars start at: a grid, and which one a market keeps to.

Vendors cut a session into hours from its open (New York 09:30, 10:30 ...) or by the clock (09:30 or 09:00, 10:00,
11:00 ...), and change from one to the other. The parts of a session before and after a lunch break have a grid
each. Every judgement at a stamp uses bars up to that stamp.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from marl_pipeline.data.calendar import HOUR, Schedule, part_index, schedule
from marl_pipeline.data.dataset import BoolArray, IntArray, TimeArray

PHASE_STEP = np.timedelta64(5, "m")
PHASES = 12
"""Grids that are distinguished: bars that start at :00, :05 ... :55."""
NEUTRAL, ODD = -1, -2
"""A bar at the open of a session (or after its break) belongs to every grid; one at 10:07:13 belongs to none."""
PARTS = 2
"""A session has at most two parts: before and after a lunch break."""
GRID_SESSIONS = 20
"""Sessions over which the bars of a grid are counted."""
ALIVE = np.timedelta64(7, "D")
"""A symbol counts among those that could have a bar for this long after its last one."""


@dataclass(frozen=True)
class Starts:
    """Where hourly bars start. [n] each.

    Attributes:
        phase: 0..11 for :00 to :55, NEUTRAL or ODD.
        part: number of the part of the session (0, and 1 after a lunch break); 0 outside any session.
        session: index of the session, -1 outside.
        begins: the bar starts at the open of the part, or before it.
    """

    phase: IntArray
    part: IntArray
    session: IntArray
    begins: BoolArray


def starts(stamps: TimeArray, calendar: str) -> Starts:
    """Reads off where in their session hourly bars start."""
    days = schedule(calendar, stamps)
    index = part_index(stamps, days)
    inside = index >= 0
    phase = clock_phase(stamps)
    opens = days.part_open[index]
    phase[inside & (opens == stamps)] = NEUTRAL
    return Starts(
        phase=phase,
        part=np.where(inside, days.part_number[index], 0),
        session=np.where(inside, days.part_session[index], -1),
        begins=inside & (stamps <= opens),
    )


def clock_phase(stamps: TimeArray) -> IntArray:
    """[n] 0..11 for the minutes :00 to :55, ODD for any other."""
    into = stamps - stamps.astype("datetime64[h]")
    return np.where(into % PHASE_STEP == np.timedelta64(0), into // PHASE_STEP, ODD).astype(np.int64)


@dataclass
class _Counted:
    """Bars of one part of the session by grid, over the latest sessions."""

    counts: IntArray = field(default_factory=lambda: np.zeros(PHASES, dtype=np.int64))
    queue: deque[tuple[int, int, int]] = field(default_factory=deque)
    leader: int = NEUTRAL
    last: int = -1  # the latest session with a bar on the leader

    def add(self, session: int, phase: int, bars: int, alive: int) -> None:
        while self.queue and self.queue[0][0] <= session - GRID_SESSIONS:
            _, old, number = self.queue.popleft()
            self.counts[old] -= number
        if phase != self.leader and 2 * bars > alive and self.last < session:
            self.counts[:] = 0
            self.queue.clear()
            self.leader = phase
        self.counts[phase] += bars
        self.queue.append((session, phase, bars))
        if self.leader == NEUTRAL or self.counts.max() > self.counts[self.leader]:
            self.leader = int(self.counts.argmax())
        if phase == self.leader:
            self.last = session


@dataclass(frozen=True)
class MarketGrid:
    """What the bars of all symbols say of the market's grid, by distinct stamp, ascending.

    Attributes:
        stamps: [U] datetime64[us].
        phase: [U, PARTS] the grid of each part of a session as of the stamp, NEUTRAL while unknown.
        shared: [U] more than half of the symbols have a bar that starts here.
        openings: the shared stamps that a session has beside the full hours of a grid: 09:30 before 10:00.
    """

    stamps: TimeArray
    phase: IntArray
    shared: BoolArray
    openings: TimeArray

    def at(self, stamps: TimeArray) -> IntArray:
        """[n, PARTS] the grid as of each stamp: that of the latest one that is not after it."""
        if not len(self.stamps):
            return np.full((len(stamps), PARTS), NEUTRAL, dtype=np.int64)
        place = np.searchsorted(self.stamps, stamps, side="right") - 1
        return np.where(place[:, None] >= 0, self.phase[np.maximum(place, 0)], NEUTRAL)


def market_grid(symbol: IntArray, stamps: TimeArray, calendar: str) -> MarketGrid:
    """The grid that the market keeps to at each stamp.

    It is the one that most bars of the last GRID_SESSIONS sessions started on. A change of the vendor's grid is one
    at once: a stamp on another grid that more than half of the symbols share, in a session without a bar on the old.

    Args:
        symbol, stamps: [n] of hourly bars in a session.
    """
    grid, count = np.unique(stamps, return_counts=True)
    where = starts(grid, calendar)
    alive = _alive(symbol, stamps, grid)
    parts = [_Counted() for _ in range(PARTS)]
    phase = np.full((len(grid), PARTS), NEUTRAL, dtype=np.int64)
    columns = (where.session, where.part, where.phase, count, alive)
    for row, (session, part, own, bars, among) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        if own >= 0 and session >= 0:
            parts[part].add(session, own, bars, among)
        phase[row] = [each.leader for each in parts]
    shared = 2 * count > alive
    return MarketGrid(grid, phase, shared, grid[shared & where.begins])


def _alive(symbol: IntArray, stamps: TimeArray, grid: TimeArray) -> IntArray:
    """[U] symbols with a bar within the ALIVE span that ends at each stamp."""
    order = np.lexsort((stamps, symbol))
    symbol, stamps = symbol[order], stamps[order]
    until = stamps + ALIVE
    until[:-1] = np.where(symbol[1:] == symbol[:-1], np.minimum(until[:-1], stamps[1:]), until[:-1])
    change = np.zeros(len(grid) + 1, dtype=np.int64)
    np.add.at(change, np.searchsorted(grid, stamps), 1)
    np.add.at(change, np.searchsorted(grid, until), -1)
    return np.cumsum(change)[:-1]


def expected_hours(days: Schedule, phases: tuple[int, int]) -> TimeArray:
    """Ascending stamps that a session has on a grid, one phase for each part of it (NEUTRAL: that of the open).

    A bar at the open that is no full hour (09:30 before 10:00) is not among them: some vendors have it, some not. See
    `MarketGrid.openings`.
    """
    opens, closes = days.part_open, days.part_close
    phase = np.array(phases)[days.part_number]
    phase = np.where(phase == NEUTRAL, (opens - opens.astype("datetime64[h]")) // PHASE_STEP, phase)
    hours: TimeArray = opens.astype("datetime64[h]").astype("datetime64[us]")
    first = hours + phase * PHASE_STEP
    first = np.where(first < opens, first + HOUR, first)
    longest = int(np.max(closes - opens) // HOUR) + 1 if len(opens) else 0
    inner = first[:, None] + np.arange(longest) * HOUR
    expected: TimeArray = np.unique(inner[inner < closes[:, None]])
    return expected


def complete_at(stamps: TimeArray, valid: IntArray, calendar: str) -> TimeArray:
    """[n] when bars are complete at the latest: a bar at the open of a part ends where the grid's first hour starts.

    Args:
        valid: [n, PARTS] the market's grid at each stamp.

    Returns:
        An hour after the stamp, or the start of the next hour of the grid where that comes first.
    """
    where = starts(stamps, calendar)
    grid = valid[np.arange(len(stamps)), where.part]
    hours: TimeArray = stamps.astype("datetime64[h]").astype("datetime64[us]")
    start = hours + np.maximum(grid, 0) * PHASE_STEP
    start = np.where(start <= stamps, start + HOUR, start)
    return np.where((where.phase == NEUTRAL) & (grid != NEUTRAL), start, stamps + HOUR)
