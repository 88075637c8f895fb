"""Stable-Baselines3 learns the project's environments, and what it learned is a policy of the project."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from marl_pipeline.agents import registry
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.algos.idqn import IDQNSettings
from marl_pipeline.checkpoint import FileCheckpointer
from marl_pipeline.envs.protocol import Environment
from marl_pipeline.errors import UserError
from marl_pipeline.training.engines import sb3
from marl_pipeline.training.engines.task import Task, load_policy
from tests.algos.toy import Colours
from tests.envs.bridges.exports.test_adapters import make_trading
from tests.training.engines.tasks import greedy, preset, spread, task

SMALL = {"horizon": 25, "epochs": 2, "minibatches": 2}


def spread_task(steps: int, **fields: Any) -> Task:
    fields = {"num_envs": 4, "seed": 1, "timesteps": steps, **fields}
    return task("ppo", preset("ppo", **SMALL), spread, **fields)


def dqn_task(steps: int) -> Task:
    chosen = registry.choose("dqn", {"learning_starts": 40, "train_freq": 5, "gradient_steps": 2})
    build = partial(registry.build, "dqn")
    return replace(spread_task(steps, num_envs=4), algorithm="dqn", settings=chosen.settings, build=build)


@pytest.mark.parametrize("make", [spread_task, dqn_task], ids=["ppo", "dqn"])
def test_the_policy_decides_as_the_library_does(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[sb3.Learner] = []
    learn = sb3._learn
    monkeypatch.setattr(sb3, "_learn", lambda task, learner, *rest: seen.append(learner) or learn(task, learner, *rest))
    chosen = make(200)
    policy = load_policy(chosen, sb3.train(chosen).weights)
    first = spread(8, 5).reset()
    actions, _ = policy.act(first, {}, None)
    theirs, _ = seen[0].model.predict(
        first.groups["agents"].observation["seen"].flatten(0, 1).numpy(), deterministic=True
    )
    assert actions["agents"].flatten().tolist() == theirs.tolist()


def test_it_learns_and_tells_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    reported: list[int] = []
    chosen = spread_task(400, evaluate_every=200, on_step=lambda label, step, total, metrics: reported.append(step))
    trained = sb3.train(chosen)
    assert reported == [100, 200, 300, 400]
    assert [evaluation.steps for evaluation in trained.run.evaluations] == [200, 400]
    played = chosen.evaluate(load_policy(chosen, trained.weights))
    assert float(played.returns.mean()) == trained.run.evaluations[-1].mean
    first, last = trained.run.evaluations
    assert trained.steps_to(min(first.mean, last.mean)) in (200, 400)
    assert trained.steps_to(last.mean) == (200 if first.mean >= last.mean else 400)
    assert trained.steps_to(0.0) is None
    again = sb3.train(replace(chosen, on_step=lambda *_: None))
    assert all(torch.equal(tensor, again.weights[name]) for name, tensor in trained.weights.items())
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.parametrize(
    ("train_freq", "gradient_steps", "every", "rate", "clock"),
    [
        (256, 128, 128, 1.0, (256, 1.0)),
        (4, 16, 4, 0.08, (1, 0.08)),
        (4, 16, 1, 0.1, (1, 1.0 - 0.9**4)),
        (4, 1, 3, 0.5, (12, 0.5)),
    ],
)
def test_the_target_is_updated_as_often_by_steps(
    train_freq: int, gradient_steps: int, every: int, rate: float, clock: tuple[int, float]
) -> None:
    changes = {"train_freq": train_freq, "gradient_steps": gradient_steps, "target": {"every": every, "rate": rate}}
    chosen = registry.choose("dqn", changes).settings
    assert isinstance(chosen, IDQNSettings)
    assert sb3.target_clock(chosen) == pytest.approx(clock)


def test_masks_are_kept_where_actions_are_forbidden() -> None:
    accounts = make_trading("accounts")(0)
    inputs = DenseInputs(accounts.groups, reference_fields=("bar", "symbol"))

    def make(num_envs: int, seed: int) -> Environment:
        return make_trading("accounts", num_envs)(seed)

    masked = replace(
        task("ppo", preset("ppo", **SMALL | {"horizon": 6}), spread, num_envs=2, seed=1, timesteps=24),
        make=make,
        inputs=inputs,
        evaluate=partial(greedy, make),
    )
    assert sb3.train(masked).run.steps >= 24


@pytest.mark.parametrize("make", [spread_task, dqn_task], ids=["ppo", "dqn"])
def test_an_interrupted_run_goes_on(tmp_path: Path, make: Any) -> None:
    checkpoint = FileCheckpointer(tmp_path)
    first = sb3.train(replace(make(200), checkpoint=checkpoint))
    second = sb3.train(replace(make(400), checkpoint=checkpoint))
    assert (first.run.steps, second.run.steps, second.run.timed_steps) == (200, 400, 200)
    assert second.run.evaluations[: len(first.run.evaluations)] == first.run.evaluations
    finished = sb3.train(replace(make(400), checkpoint=checkpoint))
    assert all(torch.equal(tensor, finished.weights[name]) for name, tensor in second.weights.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": preset("mappo")}, "central critic"),
        ({"workers": 2}, "one process"),
        (
            {"settings": preset("ppo", network={**preset("ppo").network.model_dump(), "share_parameters": False})},
            "share",
        ),
        ({"settings": registry.choose("idqn", {}).settings}, "network.duelling"),
        ({"settings": registry.choose("qmix", {}).settings}, "engine torch"),
        (
            {"settings": preset("ppo", acceleration={"precision": "bfloat16", "compile": False})},
            "acceleration.precision must be float32",
        ),
        (
            {"settings": preset("ppo", network={**preset("ppo").network.model_dump(), "actor_gain": 1.0})},
            "network.actor_gain must be 0.01",
        ),
        ({"make": Colours, "inputs": DenseInputs(Colours(1, 0).groups)}, "one group"),
    ],
)
def test_what_it_cannot_do_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sb3.train(replace(spread_task(100), **changes))
