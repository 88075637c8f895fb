"""Environments from outside in training: closed, checked as `marl env check` does, masks obeyed by every engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from marl_pipeline.agents.registry import choose
from marl_pipeline.envs.conformance import check_named
from marl_pipeline.errors import UserError
from marl_pipeline.experiments.evaluate import evaluate_run
from marl_pipeline.experiments.job import Job
from marl_pipeline.experiments.run import train_one
from marl_pipeline.progress import silent
from marl_pipeline.scenarios.registry import scenario

OPENED: list[Any] = []


class Holding(gymnasium.Env[np.ndarray, int]):
    """Holds something until it is closed. From step `masked` on action 0 is forbidden, which is counted only."""

    observation_space, action_space = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3)

    def __init__(self, masked: int = 99, breaks: int = 10**9) -> None:
        self.masked, self.breaks, self.open, self.forbidden, self.total = masked, breaks, True, 0, 0
        OPENED.append(self)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        assert self.open
        self.clock = 0
        return np.zeros(2, np.float32), self.info()

    def info(self) -> dict[str, Any]:
        return {"action_mask": np.array([0, 1, 1], np.int8)} if self.clock >= self.masked else {}

    def step(self, action: int) -> Any:
        self.forbidden += action == 0 and self.clock >= self.masked
        self.clock, self.total = self.clock + 1, self.total + 1
        reward = float("nan") if self.total >= self.breaks else float(action == 0)
        return np.full(2, self.clock / 10, np.float32), reward, self.clock >= 8, False, self.info()

    def close(self) -> None:
        self.open = False


gymnasium.register("Holding-v0", Holding)
NAME = f"gymnasium:{__name__}:Holding-v0"


def job(algo: str, engine: str, root: Path, *, timesteps: int = 128, **options: Any) -> Job:
    changes: dict[str, Any] = {"envs": 2, "horizon": 16, "epochs": 1}
    if algo != "ppo":
        changes = {"envs": 2, "learning_starts": 32, "batch": 8}
    return Job(
        algo=algo, env=NAME, env_options=options, engine=engine, workers=1,
        settings=choose(algo, changes).as_dict(), seed=0, timesteps=timesteps, evaluate_every=32, test_episodes=5,
        test_seed=0, device="cpu", threads=1,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_opened() -> None:
    OPENED.clear()


@pytest.mark.parametrize(("algo", "engine"), [("ppo", "torch"), ("dqn", "torch"), ("ppo", "sb3"), ("dqn", "sb3")])
def test_every_environment_is_closed(algo: str, engine: str, tmp_path: Path) -> None:
    def watch(*_: Any) -> None:
        assert sum(env.open for env in OPENED) <= 3  # those that are learned in: evaluations leave nothing open

    done = train_one(job(algo, engine, tmp_path), tmp_path, tmp_path / "out", fresh=True, on_step=watch)
    again = evaluate_run(done.folder, tmp_path, episodes=5, seed=0, device=None)
    assert again.mean == done.test_return
    assert len(OPENED) > 20
    assert not any(env.open for env in OPENED)


@pytest.mark.parametrize("engine", ["torch", "sb3"])
def test_every_environment_is_closed_when_a_run_is_interrupted(engine: str, tmp_path: Path) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_one(job("ppo", engine, tmp_path), tmp_path, tmp_path / "out", fresh=True, on_step=interrupt)
    assert OPENED
    assert not any(env.open for env in OPENED)


@pytest.mark.parametrize(("algo", "engine"), [("ppo", "torch"), ("dqn", "torch"), ("qmix", "torch"), ("ppo", "sb3")])
def test_masks_that_begin_after_the_first_step_bind(algo: str, engine: str, tmp_path: Path) -> None:
    """Action 0 pays and is forbidden from the third step on."""
    chosen = job(algo, engine, tmp_path, timesteps=256, masked=2)
    train_one(chosen, tmp_path, tmp_path / "out", fresh=True, on_step=silent)
    assert sum(env.total for env in OPENED) > 256
    assert sum(env.forbidden for env in OPENED) == 0


def test_a_library_without_masks_refuses_them_when_they_come(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="engine sb3: its DQN cannot leave out forbidden actions, and row 0 has some after"
    ):
        train_one(job("dqn", "sb3", tmp_path, masked=2), tmp_path, tmp_path / "out", fresh=True, on_step=silent)
    assert sum(env.forbidden for env in OPENED) == 0
    assert not any(env.open for env in OPENED)


@pytest.mark.parametrize("breaks", [5, 200])
@pytest.mark.parametrize(("algo", "engine"), [("ppo", "torch"), ("ppo", "sb3")])
def test_training_reports_what_the_check_reports(algo: str, engine: str, breaks: int, tmp_path: Path) -> None:
    words = "the reward is nan, which is not finite"
    wanted = job(algo, engine, tmp_path, timesteps=2_000, breaks=breaks)
    with pytest.raises(UserError, match=words) as trained:
        train_one(wanted, tmp_path, tmp_path / "out", fresh=True, on_step=silent)
    made = scenario(tmp_path, NAME, {"breaks": breaks}, "cpu")
    with pytest.raises(UserError, match=words) as checked:
        check_named(NAME, lambda: made.training(2, 0), steps=250)
    if breaks == 5:  # in the first steps: the very same line
        assert str(trained.value) == str(checked.value)
    assert str(trained.value).startswith(f"environment '{NAME}', agent 'agent', episode ")
