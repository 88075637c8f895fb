"""What a scenario shows of an episode is what was played: the numbers in its panels, not the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkouts import small_checkout
from torch import Tensor

from marl_pipeline.algos.common.episodes import Memoryless
from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.evaluation.greedy import greedy_returns, recorded_episode
from marl_pipeline.experiments.pictures import PICTURES, draw_pictures
from marl_pipeline.pipeline import overlay
from marl_pipeline.reporting.episode_pictures import BEST, PLAYED, drawn, episode_picture
from marl_pipeline.scenarios import registry
from marl_pipeline.scenarios.picture import Line, Panel, Table
from marl_pipeline.scenarios.scenario import Scenario


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout on the smoke profile: four symbols, 400 bars."""
    folder = small_checkout(tmp_path_factory.mktemp("checkout"))
    overlay.write(folder, overlay.merge(folder, "smoke"))
    return folder


def panels_of(made: Scenario, picture: str, policy: Any) -> list[Panel]:
    shown = made.pictures[picture]
    return list(shown.panels(recorded_episode(made.test(1, 0), policy, made.pictures)[picture]))


def random_play(made: Scenario) -> Any:
    return made.baselines["random"](made.test(1, 0).groups, 0)


def labelled(panel: Panel, label: str) -> list[Line]:
    assert not isinstance(panel.shows, Table)
    return [line for line in panel.shows if line.label == label]


@pytest.mark.parametrize("name", registry.names())
def test_every_built_in_scenario_has_a_picture_with_named_axes_and_the_same_bytes_twice(root: Path, name: str) -> None:
    made = registry.scenario(root, name, {}, "cpu")
    assert made.pictures
    for picture, shown in made.pictures.items():
        panels, again = (panels_of(made, picture, random_play(made)) for _ in range(2))
        assert all(panel.y for panel in panels)
        assert panels[-1].x
        first, second = (episode_picture("title", "note", which, across=shown.across) for which in (panels, again))
        assert first == second
        assert first.startswith(b"<?xml")


def test_trajectories_are_the_places_where_the_agents_were(root: Path) -> None:
    made = registry.scenario(root, "mpe/simple_spread", {"agents": 2}, "cpu")
    area, earned = panels_of(made, "trajectories", random_play(made))
    environment, policy = made.test(1, 0), random_play(made)
    timestep = environment.reset()
    places: list[Tensor] = [environment._position[0]]
    landmarks, returns = environment._landmark[0], [0.0]
    while not bool(timestep.done.all()):
        timestep = environment.step(policy.act(timestep, {}, None)[0])
        places.append(environment._position[0])
        returns.append(returns[-1] + float(timestep.team_reward))
    for agent in range(2):
        (path,) = labelled(area, f"agent {agent}")
        played = torch.stack(places)[:, agent].numpy()
        np.testing.assert_allclose(np.stack([path.x, path.y], 1), played, atol=1e-6)
        assert np.ptp(played, axis=0).max() > 0.05, "an agent that stands still shows nothing"
    (shown,) = labelled(area, "landmark")
    np.testing.assert_allclose(np.stack([shown.x, shown.y], 1), landmarks.numpy(), atol=1e-6)
    (line,) = labelled(earned, "")
    np.testing.assert_allclose(line.y, returns, rtol=1e-6)
    assert float(np.asarray(line.y)[-1]) == pytest.approx(float(greedy_returns(made.test(1, 0), random_play(made))))


def fixed(environment: Environment, joint: tuple[int, int]) -> Memoryless:
    """Plays the same joint action in every state."""

    def act(timestep: Timestep) -> Mapping[str, Tensor]:
        return {"agents": torch.tensor([joint]).expand(environment.num_envs, 2)}

    return Memoryless(act)


def test_the_payoff_table_marks_the_joint_action_that_was_played_in_every_state(root: Path) -> None:
    made = registry.scenario(root, "matrix/two_step", {}, "cpu")
    first, safe, risky = panels_of(made, "payoffs", fixed(made.test(1, 0), (1, 0)))
    assert [panel.title for panel in (first, safe, risky)] == [
        "state 0: 1 step",
        "state 1: not reached",
        "state 2: 1 step",
    ]
    tables = [panel.shows for panel in (first, safe, risky)]
    assert all(isinstance(table, Table) for table in tables)
    assert [np.asarray(table.outlined).tolist() for table in tables] == [
        [[0, 0], [1, 0]],
        [[0, 0], [0, 0]],
        [[0, 0], [1, 0]],
    ]
    assert np.asarray(tables[2].values).tolist() == [[0, 1], [1, 8]]
    assert [np.argwhere(table.dotted).tolist() for table in (tables[0], tables[2])] == [[[1, 0], [1, 1]], [[1, 1]]]
    axes = drawn("title", "note", [risky], across=True).axes[0]
    outlines = {patch.get_label(): tuple(patch.get_center()) for patch in axes.patches}
    assert outlines == {PLAYED: (0.0, 1.0), BEST: (1.0, 1.0)}, "x is the column, y the row"


@pytest.mark.parametrize("name", ["market/portfolio", "market/accounts", "market/single"])
def test_the_account_is_the_one_that_was_traded(root: Path, name: str) -> None:
    made = registry.scenario(root, name, {"episode": 12}, "cpu")
    equity, drawdown, exposure = panels_of(made, "account", random_play(made))
    environment, policy = made.test(1, 0), random_play(made)
    book = environment.unwrapped if name == "market/single" else environment
    timestep = environment.reset()
    cash = book.params.initial_cash
    bars, wealth, below, held = [int(book.book.bar)], [1.0], [0.0], [0.0]
    while not bool(timestep.done.all()):
        timestep = environment.step(policy.act(timestep, {}, None)[0])
        bars.append(int(book.book.bar))
        wealth.append(float(book.book.equity.mean()) / cash)
        below.append(-float((1.0 - book.book.equity / book.book.peak).mean()))
        held.append(float((book.ledger.gross / book.book.equity).mean()))
    assert bars == list(range(bars[0], bars[0] + 13))
    label = "mean of the accounts" if name == "market/accounts" else "account"
    limit = book.params.limits.account_drawdown if name == "market/accounts" else book.params.limits.portfolio_drawdown
    for panel, wanted in ((equity, wealth), (drawdown, below), (exposure, held)):
        (line,) = labelled(panel, label)
        np.testing.assert_allclose(line.y, wanted, rtol=1e-9, atol=1e-12)
        assert len(np.asarray(line.x)) == 13
    assert np.ptp(wealth) > 0.0
    assert max(held) > 0.0
    (tripped,) = labelled(drawdown, "kill switch")
    assert np.asarray(tripped.y).tolist() == [-limit] * 2
    assert len(labelled(equity, "single accounts")) == (4 if name == "market/accounts" else 0)
    figure = drawn("title", "note", [equity, drawdown, exposure], across=False)
    assert np.array_equal(figure.axes[0].lines[-2].get_ydata(), labelled(equity, label)[0].y)


def test_a_scenario_without_pictures_plays_nothing(root: Path) -> None:
    def played(num_envs: int, seed: int) -> Environment:
        raise AssertionError("an environment was built")

    bare = Scenario(played, played, read=dict)  # type: ignore[arg-type]
    job: Any = None
    assert draw_pictures(job, bare, Memoryless(lambda timestep: {}), root, 0) == []
    assert not (root / PICTURES).exists()
