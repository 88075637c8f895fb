"""Small markets with every path known: prices that stand, rise, fall, swing or jump, and one that chance drives."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from marl_pipeline.data.dataset import FloatArray, IntArray

PERSISTENCE = 0.8
"""Of the random market: the chance that a bar moves as the one before."""


@dataclass(frozen=True)
class KnownMarket:
    """P paths of H + 1 prices, one symbol. A policy sees the prices so far and knows how likely each path is.

    Attributes:
        close: [P, H + 1], the same price at bar 0.
        probability: [P], of sum 1.
    """

    name: str
    meaning: str
    close: FloatArray
    probability: FloatArray

    @property
    def horizon(self) -> int:
        """H decisions, at bars 0 to H - 1."""
        return int(self.close.shape[1]) - 1

    def nodes(self, bar: int) -> tuple[IntArray, FloatArray]:
        """What can be distinguished at `bar`: the number of each path's node [P], and the chance of each path given its
        node [nodes, P]."""
        _, node = np.unique(self.close[:, : bar + 1], axis=0, return_inverse=True)
        number: IntArray = node.reshape(-1).astype(np.int64)
        weight = (number == np.arange(number.max() + 1)[:, None]) * self.probability
        return number, weight / weight.sum(1, keepdims=True)


def known_markets(horizon: int) -> tuple[KnownMarket, ...]:
    """All of them, over `horizon` decisions; the random one is one decision shorter, for it has 2^H paths.

    Raises:
        ValueError: there would be nothing to decide.
    """
    if horizon < 2:
        raise ValueError(f"a known market needs two decisions or more, found {horizon}")
    middle = horizon // 2 + 1
    swing = np.where(np.arange(horizon) % 2 == 0, 1.0, -1.0)
    jump = np.where(np.arange(horizon) == middle, 1.0, 0.0)
    certain = {
        "constant": ("the price stands", np.zeros(horizon)),
        "slow rise": ("1 basis point a bar: less than a purchase costs", np.full(horizon, 1e-4)),
        "rise": ("1% a bar", np.full(horizon, 0.01)),
        "fall": ("-1% a bar", np.full(horizon, -0.01)),
        "swings": ("2% up and down in turn: worth the costs", 0.02 * swing),
        "ripples": ("5 basis points up and down in turn: not worth the costs", 5e-4 * swing),
        "jump": ("10% up, once", 0.1 * jump),
        "crash": ("1% a bar, then 10% down, once", np.where(jump > 0.0, -0.1, 0.01)),
    }
    markets = [
        KnownMarket(name, meaning, _prices(moves[None]), np.ones(1)) for name, (meaning, moves) in certain.items()
    ]
    return (*markets, _trends(horizon - 1))


def _trends(horizon: int) -> KnownMarket:
    """A Markov chain: 1% up or down, as the bar before with probability `PERSISTENCE`; the first is a toss."""
    moves = np.array(list(itertools.product((1.0, -1.0), repeat=horizon)))
    kept = moves[:, 1:] == moves[:, :-1]
    chance: FloatArray = 0.5 * np.where(kept, PERSISTENCE, 1.0 - PERSISTENCE).prod(1)
    return KnownMarket("trends", "1% up or down, 80% as the bar before", _prices(0.01 * moves), chance)


def _prices(moves: FloatArray) -> FloatArray:
    start = np.full((len(moves), 1), 100.0)
    prices: FloatArray = np.concatenate([start, 100.0 * (1.0 + moves).cumprod(1)], 1)
    return prices
