"""Figures of episodes are those of a plain loop over the steps, whenever an environment ends."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from marl_pipeline.envs.conformance import check_environment
from marl_pipeline.envs.episodes import EpisodeMetric, MeasuredEpisodes
from marl_pipeline.envs.matrix.games import climbing, two_step
from marl_pipeline.envs.particle.spread import SimpleSpread
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.envs.sampling import random_actions
from marl_pipeline.errors import UserError
from marl_pipeline.scenarios.registry import scenario
from tests.algos.wild import Wild

METRICS = {
    "sum": EpisodeMetric("figure", "sum", "points"),
    "mean": EpisodeMetric("figure", "mean", "points"),
    "last": EpisodeMetric("figure", "last", "points"),
    "highest": EpisodeMetric("figure", "highest", "points"),
    "agents": EpisodeMetric(lambda info: 2.0 * info["each"], "sum", "points"),
}


class ReportingFigures(Wild):
    """Episodes that end at random, with figures that are drawn too, negative ones included."""

    def step(self, actions: dict[str, torch.Tensor]) -> Timestep:
        timestep = super().step(actions)
        drawn = torch.randn(self.num_envs, 4, generator=self.figures) - 1.0
        timestep.info.update({"figure": drawn[:, 0], "each": drawn[:, 1:]})
        return timestep

    figures = torch.Generator()


def test_figures_are_those_of_a_plain_loop() -> None:
    environment = MeasuredEpisodes(ReportingFigures(5, 3), METRICS)
    ReportingFigures.figures.manual_seed(0)
    timestep, generator = environment.reset(), torch.Generator().manual_seed(1)
    running: list[list[tuple[float, float]]] = [[] for _ in range(5)]
    ended: list[list[dict[str, float]]] = [[] for _ in range(5)]
    for _ in range(60):
        timestep = environment.step(random_actions(environment.groups, timestep, generator))
        for row in range(5):
            running[row].append((float(timestep.info["figure"][row]), float(timestep.info["each"][row].mean())))
            if bool(timestep.done[row]):
                own = [figure for figure, _ in running[row]]
                found = {"sum": sum(own), "mean": sum(own) / len(own), "last": own[-1], "highest": max(own)}
                ended[row].append(found | {"agents": sum(2.0 * each for _, each in running[row])})
                running[row] = []
        if bool(timestep.done.any()):
            timestep = environment.reset(timestep.done)
    assert min(map(len, ended)) >= 2
    collected, first = environment.collected(), environment.first
    everyone = [episode for row in ended for episode in row]
    for name in METRICS:
        assert collected[name] == pytest.approx(sum(one[name] for one in everyone) / len(everyone), rel=1e-6)
        assert first[name].tolist() == pytest.approx([row[0][name] for row in ended], rel=1e-6)
    assert environment.collected() == {}


def test_an_episode_that_a_reset_cuts_is_not_counted() -> None:
    environment = MeasuredEpisodes(climbing(1, seed=0, episode=3), {"best": EpisodeMetric("optimal", "sum", "steps")})
    timestep = environment.reset()
    best = {"agents": torch.tensor([[0, 0]])}
    environment.step(best)
    environment.reset()
    assert environment.collected() == {}
    assert math.isnan(environment.first["best"].item())
    for _ in range(3):
        timestep = environment.step(best)
    assert bool(timestep.done.all())
    assert environment.collected() == {"best": 3.0}


def test_measuring_holds_to_the_protocol_and_resumes() -> None:
    metrics = scenario(Path(), "mpe/simple_spread", {}, "cpu").metrics
    check_environment(lambda: MeasuredEpisodes(SimpleSpread(3, seed=1), metrics), steps=60)

    def play(environment: MeasuredEpisodes, steps: int) -> None:
        generator = torch.Generator().manual_seed(steps)
        for _ in range(steps):
            drawn = torch.randint(5, (3, 3), generator=generator)
            timestep = environment.step({"agents": drawn})
            if bool(timestep.done.any()):
                environment.reset(timestep.done)

    whole, half, rest = (MeasuredEpisodes(SimpleSpread(3, seed=1), metrics) for _ in range(3))
    for environment in (whole, half, rest):
        environment.reset()
    play(whole, 30)
    play(half, 30)
    rest.load_state_dict(half.state_dict())
    for environment in (whole, rest):
        play(environment, 40)
    assert rest.collected() == whole.collected() != {}


def test_a_figure_that_no_step_has_is_named() -> None:
    environment = MeasuredEpisodes(two_step(1, seed=0), {"speed": EpisodeMetric("speed", "mean", "m/s")})
    environment.reset()
    with pytest.raises(UserError, match=r"metric 'speed' needs 'speed' in the info of every step \(found: optimal"):
        environment.step({"agents": torch.tensor([[0, 0]])})
