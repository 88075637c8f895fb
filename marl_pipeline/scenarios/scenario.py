"""What a run needs of an environment: one to train in, one to be tested in, and what the networks read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.envs.protocol import Environment

Make = Callable[[int, int], Environment]
"""(copies, seed) -> an environment."""


@dataclass(frozen=True)
class Scenario:
    """Attributes:
    training, test: build copies of the environment to learn in, and of the one that measures.
    inputs: what a network reads of an observation.
    facts: what identifies the data or the source behind the environment; empty where its name and options say all.
    """

    training: Make
    test: Make
    inputs: Inputs
    facts: Mapping[str, str]
