"""What a run needs of an environment, and what a reader needs to assess the run: a scenario."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from marl_pipeline.algos.common.algorithm import Policy
from marl_pipeline.algos.common.inputs import DenseInputs, Inputs
from marl_pipeline.envs.episodes import EpisodeMetric
from marl_pipeline.envs.lookup import check_options
from marl_pipeline.envs.protocol import Environment, GroupSpec, closing
from marl_pipeline.envs.sampling import RandomPolicy
from marl_pipeline.scenarios.picture import EpisodePicture

Make = Callable[[int, int], Environment]
"""(number of environments, seed) -> an environment."""

Baseline = Callable[[Mapping[str, GroupSpec], int], Policy]
"""(groups of the environment, seed) -> a policy that has learned nothing."""


@dataclass(frozen=True)
class Published:
    """A return that a paper reports, in the unit of our test returns.

    Attributes:
        timesteps: environment steps of the training behind it.
    """

    test_return: float
    timesteps: int
    source: str


@dataclass(frozen=True)
class Scenario:
    """Attributes:
    training, test: build environments to learn in, and those that measure.
    read: builds what a network reads of an observation (`inputs`).
    metrics: figures of an episode besides its return.
    pictures: name -> what is drawn of one greedy episode, besides the learning curves.
    baselines: policies to beat; random play is one everywhere.
    published: algorithm -> what is known of it here.
    optimum: the highest test return that there is, where it is known.
    identify: finds what identifies the data or the source behind the environment (`facts`).
    """

    training: Make
    test: Make
    read: Callable[[], Inputs]
    metrics: Mapping[str, EpisodeMetric] = field(default_factory=dict)
    pictures: Mapping[str, EpisodePicture] = field(default_factory=dict)
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    published: Mapping[str, Published] = field(default_factory=dict)
    optimum: float | None = None
    identify: Callable[[], Mapping[str, str]] = dict

    @cached_property
    def inputs(self) -> Inputs:
        """What a network reads of an observation."""
        return self.read()

    @cached_property
    def facts(self) -> Mapping[str, str]:
        """What identifies the data or the source behind the environment; empty where its name and options say all."""
        return self.identify()


def random_policy(groups: Mapping[str, GroupSpec], seed: int) -> Policy:
    """Every allowed action is as likely as the next."""
    return RandomPolicy(groups, seed)


def maker(
    name: str, builder: Callable[..., Environment], options: Mapping[str, Any], device: torch.device | str
) -> Make:
    """Builds environments by `builder(num_envs, seed=..., device=..., **options)`.

    Raises:
        UserError: an option is unknown or has the wrong type.
    """
    check_options(name, builder, options, ours=("num_envs", "seed", "device"))

    def make(num_envs: int, seed: int) -> Environment:
        return builder(num_envs, seed=seed, device=device, **options)

    return make


def plain(make: Make, **declared: Any) -> Scenario:
    """A scenario that is tested as it is learned, whose networks read the float fields of the observations."""
    baselines = {"random": random_policy, **declared.pop("baselines", {})}

    def read() -> Inputs:
        with closing(make(1, 0)) as environment:
            return DenseInputs(environment.groups)

    return Scenario(make, make, read, baselines=baselines, **declared)
