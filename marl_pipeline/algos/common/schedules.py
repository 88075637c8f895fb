"""Numbers that change over a run: learning rates, exploration, importance exponents."""

from __future__ import annotations

import math
import re
from typing import Literal, Self

from pydantic import Field, model_validator

from marl_pipeline.config import Fraction, NonNegative, Section

IN_WORDS = re.compile(r"(?P<kind>linear|cosine) (?P<start>\S+) to (?P<end>\S+) over (?P<share>[\d.]+)%")


class Schedule(Section):
    """From `start` to `end` over the first `share` of the run, then `end`.

    `constant` stays at `start`, whatever `end` says must equal it; `cosine` is half a cosine (Loshchilov & Hutter 2017,
    without restarts). May be given as a number, which is a constant, or in words, as settings are printed: "linear
    0.01 to 0 over 50%".
    """

    kind: Literal["constant", "linear", "cosine"]
    start: float
    end: float
    share: Fraction = Field(gt=0.0)

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, given: object) -> object:
        if isinstance(given, int | float) and not isinstance(given, bool):
            return {"kind": "constant", "start": given, "end": given, "share": 1.0}
        if isinstance(given, str):
            words = IN_WORDS.fullmatch(given.strip())
            if words is None:
                raise ValueError("write a number, or such as 'linear 0.01 to 0 over 50%'")
            return {**words.groupdict(), "share": float(words["share"]) / 100.0}
        return given

    @model_validator(mode="after")
    def _constant_is_constant(self) -> Self:
        if self.kind == "constant" and self.start != self.end:
            raise ValueError(f"a constant schedule starts at {self.start} and ends at {self.end}")
        return self

    def at(self, progress: float) -> float:
        """The value when `progress` of the run's timesteps, in [0, 1], are done."""
        done = min(progress / self.share, 1.0)
        if self.kind == "cosine":
            done = (1.0 - math.cos(math.pi * done)) / 2.0
        return self.start + (self.end - self.start) * done


class Rate(Schedule):
    """A schedule of something that cannot be negative: a learning rate, a standard deviation."""

    start: NonNegative
    end: NonNegative


class Probability(Schedule):
    """A schedule of something in [0, 1]."""

    start: Fraction
    end: Fraction
