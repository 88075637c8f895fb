"""The training loop and its callbacks: what is kept, when it moves on, and that a killed run ends in the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_pipeline.algos.common.algorithm import Policy
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.algos.on_policy import OnPolicy
from marl_pipeline.checkpoint import Checkpointer, FileCheckpointer, NoCheckpoint
from marl_pipeline.envs.staged import StagedEnvironment
from marl_pipeline.progress import OnStep, silent
from marl_pipeline.training.callbacks import (
    Curriculum,
    EarlyStopping,
    GreedyEvaluation,
    KeepBest,
    OpponentPool,
    Telemetry,
)
from marl_pipeline.training.loop import Callback, EpisodeResults, Run, train
from tests.algos.learners import assert_same_bytes, settings
from tests.algos.toy import Colours
from tests.learning import OverSeeds

ITERATION = 12 * 16
"""Environment steps of one iteration: the horizon of `settings` in 16 environments."""


def learner(environment: Any, seed: int = 0) -> OnPolicy:
    return OnPolicy(environment, DenseInputs(environment.groups), settings("mappo"), seed=seed, timesteps=8 * ITERATION)


def run(
    callbacks: list[Callback],
    *,
    iterations: int = 6,
    environment: Any = None,
    seed: int = 0,
    checkpoint: Checkpointer | None = None,
    on_step: OnStep = silent,
) -> tuple[OnPolicy, Run]:
    environment = environment or Colours(16, 0)
    algorithm = learner(environment, seed)
    done = train(
        algorithm,
        environment,
        timesteps=iterations * ITERATION,
        callbacks=callbacks,
        checkpoint=checkpoint or NoCheckpoint(),
        checkpoint_every=1,
        label="toy",
        on_step=on_step,
    )
    return algorithm, done


def scores(*values: float) -> Callable[[Policy], EpisodeResults]:
    following: Iterator[float] = iter(values)
    return lambda policy: EpisodeResults(torch.tensor([next(following)]))


def test_the_weights_of_the_best_evaluation_are_kept_and_the_earliest_of_equals() -> None:
    best = KeepBest()
    kept, done = run([GreedyEvaluation(scores(0.0, 1.0, 3.0, 3.0, 2.0), 2 * ITERATION, first=True), best], iterations=8)
    assert [entry.steps for entry in done.evaluations] == [
        0,
        2 * ITERATION,
        4 * ITERATION,
        6 * ITERATION,
        8 * ITERATION,
    ]
    assert best.best is not None
    assert best.best.steps == 4 * ITERATION
    four, _ = run([], iterations=4)
    assert_same_bytes(kept.weights(), four.weights())


def test_training_that_only_does_harm_ends_where_it_began() -> None:
    kept, _ = run([GreedyEvaluation(scores(5.0, 1.0, 2.0), 3 * ITERATION, first=True), KeepBest()])
    assert_same_bytes(kept.weights(), learner(Colours(16, 0)).weights())


def test_without_selection_the_last_weights_are_kept() -> None:
    kept, _ = run([GreedyEvaluation(scores(5.0, 1.0), 3 * ITERATION)])
    last, _ = run([])
    assert_same_bytes(kept.weights(), last.weights())


def test_a_run_that_gets_no_better_stops() -> None:
    stopping = EarlyStopping(patience=2)
    _, done = run([GreedyEvaluation(scores(1.0, 2.0, 1.5, 1.9), ITERATION), stopping])
    assert done.steps == 4 * ITERATION


class Recorder(Colours):
    """Says which stage was played."""

    def __init__(self, stage: int, log: list[int]) -> None:
        super().__init__(16, stage)
        self._stage, self._log = stage, log

    def step(self, actions: Any) -> Any:
        self._log.append(self._stage)
        return super().step(actions)


def test_a_curriculum_plays_its_stages_in_order_and_at_their_time() -> None:
    log: list[int] = []
    stages = StagedEnvironment([lambda: Recorder(0, log), lambda: Recorder(1, log), lambda: Recorder(2, log)])
    telemetry = Telemetry()
    run([Curriculum((0, 2 * ITERATION, 3 * ITERATION)), telemetry], environment=stages)
    # The step at which a stage is left still belongs to it.
    assert log == [0] * 25 + [1] * 12 + [2] * 35
    assert telemetry.curves["curriculum_stage"][1] == [0.0, 0.0, 1.0, 2.0, 2.0, 2.0]


def test_a_stage_is_left_by_truncation_and_the_next_one_starts_anew() -> None:
    stages = StagedEnvironment([lambda: Colours(4, 0), lambda: Colours(4, 1)])
    actions = {"workers": torch.zeros(4, 2, dtype=torch.int64), "boss": torch.zeros(4, 1, dtype=torch.int64)}
    stages.reset()
    assert not bool(stages.step(actions).done.any())
    stages.enter(1)
    left = stages.step(actions)
    assert bool(left.truncated.all())
    assert not bool(left.terminated.any())
    fresh = stages.reset(left.done)
    assert stages.stage == 1
    assert_same_bytes(fresh.groups["boss"].observation, Colours(4, 1).reset().groups["boss"].observation)
    with pytest.raises(ValueError, match="no stage 2"):
        stages.enter(2)


class Mirror(Colours):
    """Two groups of equal shape: `workers` learn, `rivals` are frozen."""

    def __init__(self) -> None:
        super().__init__(16, 0)
        self.groups = {"workers": self.groups["workers"], "rivals": self.groups["workers"]}

    def step(self, actions: Any) -> Any:
        return super().step({**actions, "boss": torch.zeros(16, 1, dtype=torch.int64)})

    def _timestep(self, *rewards: Any) -> Any:
        timestep = super()._timestep(*rewards)
        groups = {"workers": timestep.groups["workers"], "rivals": timestep.groups["workers"]}
        return type(timestep)(**{**vars(timestep), "groups": groups})


def test_opponents_are_earlier_weights_of_the_learner() -> None:
    environment = Mirror()
    inputs = DenseInputs(environment.groups)
    algorithm = OnPolicy(environment, inputs, settings("ppo"), seed=0, timesteps=8 * ITERATION, learn=["workers"])
    pool = OpponentPool(learner="workers", opponent="rivals", every=ITERATION, size=3, seed=0)
    seen: list[dict[str, Tensor]] = [algorithm.weights()]

    class Watch(Callback):
        def on_iteration(self, training: Any, before: int) -> None:
            now = training.algorithm.weights()
            rival = {key.removeprefix("rivals."): kept for key, kept in now.items() if key.startswith("rivals.")}
            seen.append(now)
            past = [
                {k.removeprefix("workers."): v for k, v in w.items() if k.startswith("workers.")} for w in seen[-3:]
            ]
            assert any(all(torch.equal(rival[key], weights[key]) for key in rival) for weights in past)

    train(
        algorithm, environment, timesteps=6 * ITERATION, callbacks=[pool, Watch()], checkpoint=NoCheckpoint(),
        checkpoint_every=1, label="pool", on_step=silent,
    )  # fmt: skip
    assert len(seen) == 7


class KilledError(Exception):
    pass


@pytest.mark.parametrize("at", [1, 3, 4, 5])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path, at: int) -> None:
    def die(label: str, step: int, total: int, metrics: Any) -> None:
        if step == at * ITERATION:
            raise KilledError

    def everything() -> tuple[list[Callback], Any]:
        stages = StagedEnvironment([lambda: Colours(16, 0), lambda: Colours(16, 1)])

        def evaluate(policy: Policy) -> EpisodeResults:
            values = torch.cat([weight.flatten() for weight in policy.module.parameters()])[:7].detach()
            return EpisodeResults(values, {"squared": values**2})

        evaluation = GreedyEvaluation(evaluate, 2 * ITERATION, first=True)
        return [evaluation, KeepBest(), Curriculum((0, 3 * ITERATION)), Telemetry()], stages

    callbacks, stages = everything()
    undisturbed, first = run(callbacks, environment=stages)
    curves = callbacks[-1].state_dict()
    callbacks, stages = everything()
    with pytest.raises(KilledError):
        run(callbacks, environment=stages, checkpoint=FileCheckpointer(tmp_path), on_step=die)
    callbacks, stages = everything()
    resumed, second = run(callbacks, environment=stages, checkpoint=FileCheckpointer(tmp_path))
    assert_same_bytes(resumed.weights(), undisturbed.weights())
    assert second.evaluations == first.evaluations
    assert callbacks[-1].state_dict() == curves


def test_figures_become_curves_over_environment_steps(over_seeds: OverSeeds) -> None:
    def gain(seed: int) -> float:
        telemetry = Telemetry()
        run([telemetry], environment=Colours(16, seed), seed=seed)
        steps, values = telemetry.curves["workers/reward_per_step"]
        assert steps == [ITERATION * (k + 1) for k in range(6)]
        return values[-1] - values[0]

    over_seeds(gain, at_least=0.3)
