"""What the engines of other libraries share: when to evaluate, and how their weights become a policy of the project."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from marl_pipeline.algos.common.acceleration import Acceleration
from marl_pipeline.algos.common.algorithm import Policy
from marl_pipeline.algos.ppo import PPOSettings
from marl_pipeline.checkpoint import State
from marl_pipeline.envs.bridges.exports.features import Features
from marl_pipeline.envs.episodes import EpisodeMetric, MeasuredEpisodes
from marl_pipeline.envs.protocol import ActionSpace, Environment, GroupStep, closing
from marl_pipeline.envs.wrappers import SharedReward
from marl_pipeline.errors import UserError
from marl_pipeline.training.engines.task import Task, Trained, Weights, cpu_weights
from marl_pipeline.training.loop import Evaluate, Evaluation, Run


@dataclass
class Watch:
    """Follows a library's loop as `training.loop.train` does the project's own.

    Attributes:
        policy: of the project; `load` brings the library's present weights into it.
        steps: environment steps taken, all environments together.
        measured: the episodes that the library plays, where they are played in this process.
    """

    task: Task
    policy: Policy
    load: Callable[[], None]
    steps: int = 0
    timed_steps: int = 0
    seconds: float = 0.0
    evaluations: list[Evaluation] = field(default_factory=list)
    metrics: Mapping[str, float] = field(default_factory=dict)
    measured: Measured | None = None
    best: Evaluation | None = None
    best_weights: Weights = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises:
        UserError: the task asks for what only the project's own loop can do.
        """
        asked = {"start": self.task.start is not None, "curriculum": self.task.curriculum}
        for name, value in asked.items():
            if value:
                raise UserError(f"{self.task.label}: {name} needs engine torch or ray")
        self._began = time.perf_counter()

    def after_iteration(self, steps: int, metrics: Mapping[str, float]) -> bool:
        """The library has collected and learned; `steps` are all that it has taken. True when the run is over."""
        task, before = self.task, self.steps
        self.seconds += time.perf_counter() - self._began
        self.timed_steps += steps - before
        self.steps, self.metrics = steps, metrics
        over = steps >= task.timesteps
        figures = dict(metrics) if self.measured is None else {**metrics, **self.measured.collected()}
        if task.evaluate is not None and (over or steps // task.evaluate_every > before // task.evaluate_every):
            figures |= self._evaluate(task.evaluate)
        task.on_step(task.label, min(steps, task.timesteps), task.timesteps, figures)
        self._began = time.perf_counter()
        return over

    def _evaluate(self, evaluate: Evaluate) -> dict[str, float]:
        """Plays the present weights, and keeps them where the task selects and they are the best so far."""
        self.load()
        evaluation = Evaluation.of(self.steps, evaluate(self.policy))
        self.evaluations.append(evaluation)
        if self.task.select and (self.best is None or evaluation.mean > self.best.mean):
            self.best, self.best_weights = evaluation, cpu_weights(self.policy.module)
        figures = {f"test/{name}": figure["mean"] for name, figure in evaluation.metrics.items()}
        return {self.task.score: evaluation.mean, **figures}

    def state(self) -> State:
        """What a checkpoint needs of it."""
        return {
            "best": None if self.best is None else self.best.as_list(),
            "best_weights": self.best_weights,
            "steps": self.steps,
            "evaluations": [entry.as_list() for entry in self.evaluations],
            "metrics": dict(self.metrics),
        }

    def resume(self, state: State) -> None:
        self.steps, self.metrics = int(state["steps"]), state["metrics"]
        self.evaluations = [Evaluation(*entry) for entry in state["evaluations"]]
        self.best = None if state["best"] is None else Evaluation(*state["best"])
        self.best_weights = dict(state["best_weights"])

    def trained(self) -> Trained:
        """The policy as it is now, or that of the best evaluation where the task selects."""
        self.load()
        weights = cpu_weights(self.policy.module) if self.best is None else self.best_weights
        evaluations = tuple(self.evaluations)
        means = [one.mean for one in evaluations]
        run = Run(
            self.steps,
            evaluations,
            self.metrics,
            self.seconds,
            self.timed_steps,
            curves={self.task.score: ([one.steps for one in evaluations], means)} if means else {},
            selected=self.best,
        )
        return Trained(weights, run)


class Measured:
    """The episodes of all environments that a library has had made in this process."""

    def __init__(self, metrics: Mapping[str, EpisodeMetric]) -> None:
        self._metrics = metrics
        self._environment: MeasuredEpisodes | None = None

    def watch(self, environment: Environment) -> Environment:
        """The environment to step; it takes the place of the one before."""
        if not self._metrics:
            return environment
        self._environment = MeasuredEpisodes(environment, self._metrics)
        return self._environment

    def collected(self) -> dict[str, float]:
        """`episode/<metric>`: means over the episodes that have ended since the last call."""
        found = {} if self._environment is None else self._environment.collected()
        return {f"episode/{name}": mean for name, mean in found.items()}


def row_features(task: Task) -> Features:
    """What the library's networks read: the rows that the project's own would read."""

    def features(group: str, step: GroupStep) -> Tensor:
        return task.inputs(group, step.observation)

    return features


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks this small lose time to a second thread, the more so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def training_environment(
    task: Task, num_envs: int, seed: int, reward: str, measured: Measured | None = None
) -> Environment:
    """What the library steps: every agent earns its own reward or, with `team`, what the team earned.

    Args:
        measured: takes note of the environment, whose episodes it measures.
    """
    environment = task.make(num_envs, seed)
    if measured is not None:
        environment = measured.watch(environment)
    return SharedReward(environment) if reward == "team" else environment


def on_policy_settings(task: Task, engine: str, spaces: tuple[type[ActionSpace], ...]) -> PPOSettings:
    """The settings of an algorithm that the library has under the name PPO, for actions of these `spaces`.

    Raises:
        UserError: the algorithm is another one, or what it asks for has no counterpart.
    """
    require_spaces(task, engine, spaces)
    settings = task.settings
    if not isinstance(settings, PPOSettings):
        raise UserError(f"engine {engine}: it has no {task.algorithm}: choose engine torch")
    require_plain(settings.acceleration, engine)
    network = settings.network
    if network.recurrence != "none" or not network.share_parameters or network.agent_heads:
        raise UserError(
            f"engine {engine}: network.recurrence must be none, network.share_parameters true and network.agent_heads "
            "false: choose engine torch"
        )
    return settings


def require_spaces(task: Task, engine: str, spaces: tuple[type[ActionSpace], ...]) -> None:
    """Raises:
    UserError: a group's actions are of another kind than the engine learns here.
    """
    wanted = " or ".join(space.__name__ for space in spaces)
    with closing(task.make(1, task.seed)) as environment:
        groups = environment.groups
    for group, spec in groups.items():
        if not isinstance(spec.actions, spaces):
            raise UserError(
                f"engine {engine}: the actions of group {group!r} must be {wanted}, found {spec.actions}: choose "
                "engine torch"
            )


def require_plain(acceleration: Acceleration, engine: str) -> None:
    """Raises:
    UserError: lower precision or compiled graphs are asked for.
    """
    if acceleration.precision != "float32" or acceleration.compile:
        raise UserError(
            f"engine {engine}: acceleration.precision must be float32 and acceleration.compile false (found "
            f"{acceleration.precision}, {acceleration.compile}): choose engine torch"
        )


@torch.no_grad()
def transfer(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    """Copies the parameters of one network into another of the same layers, in their order.

    Raises:
        ValueError: the layers differ.
    """
    if [tensor.numel() for tensor in source] != [tensor.numel() for tensor in target]:
        raise ValueError(
            f"layers differ: {[tuple(tensor.shape) for tensor in source]} and "
            f"{[tuple(tensor.shape) for tensor in target]}"
        )
    for given, place in zip(source, target, strict=True):
        place.copy_(given.view_as(place))
