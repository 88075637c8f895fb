"""Rows over the N symbols of one environment, and over its A accounts."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from marl_pipeline.envs.trading.compiled.kernel.arrays import Floats, Ints, Layout, compiled

T = TypeVar("T", bound=np.generic)


@compiled
def total(values: Floats) -> float:
    """In four lanes: four times as fast as in order, and the same on every machine."""
    first, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    whole = values.size - values.size % 4
    for n in range(0, whole, 4):
        first += values[n]
        second += values[n + 1]
        third += values[n + 2]
        fourth += values[n + 3]
    for n in range(whole, values.size):
        first += values[n]
    return (first + second) + (third + fourth)


@compiled
def largest(values: Floats) -> float:
    """Of [N] numbers from 0 on, in four lanes as well."""
    first, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    whole = values.size - values.size % 4
    for n in range(0, whole, 4):
        first = max(first, values[n])
        second = max(second, values[n + 1])
        third = max(third, values[n + 2])
        fourth = max(fourth, values[n + 3])
    for n in range(whole, values.size):
        first = max(first, values[n])
    return max(max(first, second), max(third, fourth))


@compiled
def fill(row: NDArray[T], value: T) -> None:
    """A row at a time: stores into several rows at once are not vectorised."""
    for n in range(row.size):
        row[n] = value


@compiled
def _total_of(values: Floats, order: Ints, first: int, last: int) -> float:
    """`total` of the symbols `order[first]` .. `order[last - 1]`."""
    one, two, three, four = 0.0, 0.0, 0.0, 0.0
    whole = last - (last - first) % 4
    for k in range(first, whole, 4):
        one += values[order[k]]
        two += values[order[k + 1]]
        three += values[order[k + 2]]
        four += values[order[k + 3]]
    for k in range(whole, last):
        one += values[order[k]]
    return (one + two) + (three + four)


@compiled
def gather(row: NDArray[T], values: NDArray[T], account_of: Ints) -> None:
    """[A] to [N], a row at a time as well."""
    for n in range(row.size):
        row[n] = values[account_of[n]]


@compiled
def pool(g: Layout, values: Floats, out: Floats) -> Floats:
    """`limits.Rules.pool`: [N] to [A]."""
    if not g.pooled:
        return values
    if g.segmented:
        for a in range(out.size):
            out[a] = _total_of(values, g.order, g.bounds[a], g.bounds[a + 1])
    else:
        out[0] = total(values)
    return out


@compiled
def spread(g: Layout, values: Floats, out: Floats) -> Floats:
    """`limits.Rules.spread`: [A] to [N]."""
    if not g.pooled:
        return values
    if g.segmented:
        gather(out, values, g.account_of)
    else:
        fill(out, values[0])
    return out
