"""The state of an episode: everything that changes from step to step, as tensors that can be saved and masked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Book:
    """State of E environments at the close of `bar`. Money is float64.

    Attributes:
        bar, end, steps: [E] int64: where the episode is, where it is truncated, steps since its start.
        cash, equity, peak: [E, A]; `peak` is the reference of the drawdown.
        halt: [E, A] int64, the kill switch (see `limits.Rules`).
        alive: [E, A] bool, False once the equity is gone.
        turnover: [E, A] traded in the session of the next fill, as a multiple of equity.
        directive: [E, A] int64, row of the directive table that is active.
        mean, square: [E, A] float32, exponentially weighted mean of the return and of its square.
        last_return, last_turnover: [E, A] float32 of the last step.
        shares, invested: [E, N] held, and money paid for it with costs; negative when short (`invested` is then what
            the sale brought, net of costs).
        mark, value: [E, N] the price of the mark and the money in the position, negative when short.
        duration, idle: [E, N] float32 bars that the position is held, bars since the last trade.
        trades: [E, N] int32 trades in the session of the next fill.
    """

    bar: Tensor
    end: Tensor
    steps: Tensor
    cash: Tensor
    equity: Tensor
    peak: Tensor
    halt: Tensor
    alive: Tensor
    turnover: Tensor
    directive: Tensor
    mean: Tensor
    square: Tensor
    last_return: Tensor
    last_turnover: Tensor
    shares: Tensor
    invested: Tensor
    mark: Tensor
    value: Tensor
    duration: Tensor
    idle: Tensor
    trades: Tensor

    @classmethod
    def fresh(cls, bar: Tensor, end: Tensor, directive: Tensor, mark: Tensor, capital: Tensor) -> Book:
        """Flat books of `capital` [A]: `directive` is [E, A], `mark` [E, N]."""
        money = capital.expand(directive.shape).clone()
        none = torch.zeros_like(money)
        slight = torch.zeros_like(money, dtype=torch.float32)
        empty = torch.zeros_like(mark)
        bars = torch.zeros_like(mark, dtype=torch.float32)
        return cls(
            bar=bar,
            end=end,
            steps=torch.zeros_like(bar),
            cash=money,
            equity=money,
            peak=money,
            halt=torch.zeros_like(directive),
            alive=torch.ones_like(directive, dtype=torch.bool),
            turnover=none,
            directive=directive,
            mean=slight,
            square=slight,
            last_return=slight,
            last_turnover=slight,
            shares=empty,
            invested=empty,
            mark=mark,
            value=empty,
            duration=bars,
            idle=bars,
            trades=torch.zeros_like(mark, dtype=torch.int32),
        )

    def where(self, mask: Tensor, other: Book) -> Book:
        """`other` in the environments where the [E] `mask` is True, this one elsewhere."""
        mixed = {}
        for field in fields(self):
            mine: Tensor = getattr(self, field.name)
            here = mask.view(-1, *([1] * (mine.dim() - 1)))
            mixed[field.name] = torch.where(here, getattr(other, field.name), mine)
        return replace(self, **mixed)

    def tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], device: torch.device) -> Book:
        return cls(**{field.name: tensors[field.name].to(device).clone() for field in fields(cls)})
