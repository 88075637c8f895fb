"""What learners of action values share: their iteration, their target, and what a checkpoint of them holds."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from marl_pipeline.algos.common.action_values import ActionValueSettings, EpsilonGreedy, q_networks
from marl_pipeline.algos.common.algorithm import Iteration, Weights, load_into, require_finite
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.algos.common.off_policy import Collector, OffPolicySettings
from marl_pipeline.algos.common.optimizer_step import OptimizerSettings, OptimizerStep, TargetSettings, soft_update
from marl_pipeline.algos.common.replay import Replay
from marl_pipeline.algos.common.schedules import Probability
from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction
from marl_pipeline.seeding import stream


class ValueSettings(OffPolicySettings):
    """Attributes:
    double: the learned network picks the next action, the target network values it (van Hasselt et al. 2016).
    """

    network: ActionValueSettings
    optimizer: OptimizerSettings
    target: TargetSettings
    exploration: Probability
    double: bool


S = TypeVar("S", bound=ValueSettings)


class ValueLearner(ABC, Generic[S]):
    """Implements `algorithm.Algorithm` but for the update.

    Attributes:
        name: of the algorithm, for messages.
    """

    name: ClassVar[str]

    def __init__(
        self,
        environment: Environment,
        inputs: Inputs,
        settings: S,
        *,
        seed: int,
        timesteps: int,
        reduction: Reduction = NO_REDUCTION,
    ) -> None:
        settings = reduction.shared(settings, "batch", "buffer_size", "learning_starts")
        own_seed = reduction.own_seed(seed)
        self._environment, self._inputs, self._settings, self._timesteps = environment, inputs, settings, timesteps
        self._networks = q_networks(environment, inputs, settings.network, seed=seed, name=self.name)
        self._learned = self._all_learned(seed)
        self._target = copy.deepcopy(self._learned).requires_grad_(False)
        self._optimizer = OptimizerStep(self._learned.parameters(), settings.optimizer, reduction)
        self.policy = EpsilonGreedy(environment, self._networks, inputs, memory=settings.network.recurrent_width)
        first = environment.reset()
        self._replay = self._new_replay(first)
        self._replay.check_size(self._rows, self.name)
        self._collector = Collector(environment, first, self.policy, self._replay, stream(own_seed, "exploration"))
        self._generator = stream(own_seed, "replay")
        self._steps = self._updates = 0

    def _all_learned(self, seed: int) -> nn.ModuleDict:
        """The agents' networks, and what is learned beside them; `seed` fixes the initial weights."""
        del seed
        return self._networks

    @abstractmethod
    def _new_replay(self, first: Timestep) -> Replay: ...

    @property
    @abstractmethod
    def _rows(self) -> int:
        """Consecutive rows of the replay that an update needs."""

    @property
    def progress(self) -> float:
        """Share of the run that is over."""
        return self._steps / self._timesteps

    def iterate(self) -> Iteration:
        """`train_freq` steps of every environment, then `gradient_steps` updates if there is enough to learn from:
        so many steps, whatever happened in them, because all workers must begin together.

        Raises:
            UserError: training diverged.
        """
        s = self._settings
        self.policy.epsilon = s.exploration.at(self.progress)
        metrics = self._collector.collect(s.train_freq) | {"exploration": self.policy.epsilon}
        steps = s.train_freq * self._environment.num_envs
        self._steps += steps
        if self._steps >= max(s.learning_starts, self._rows * self._environment.num_envs):
            self._take_in()
            history = torch.stack([self._updated() for _ in range(s.gradient_steps)])
            learned = dict(zip(("loss", "q_mean", "grad_norm"), history.mean(0).tolist(), strict=True))
            require_finite(learned)
            metrics |= learned
        return Iteration(steps, metrics)

    def _updated(self) -> Tensor:
        figures = self._update()
        self._updates += 1
        if self._updates % self._settings.target.every == 0:
            soft_update(self._target, self._learned, self._settings.target.rate)
        return figures

    def _take_in(self) -> None:
        """Called before the updates of an iteration, when what was collected is in the replay."""

    @abstractmethod
    def _update(self) -> Tensor:
        """One gradient step; loss, mean value and gradient norm [3]."""

    def weights(self) -> dict[str, Tensor]:
        """The agents' networks and what is learned beside them."""
        return {name: tensor.detach().clone() for name, tensor in self._learned.state_dict().items()}

    def load_weights(self, weights: Weights) -> None:
        """Starts from there; the target network is equal to the learned one.

        Raises:
            UserError: they do not fit.
        """
        load_into(self._learned, weights, self.name)
        self._target.load_state_dict(self._learned.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {
            "learned": self._learned.state_dict(),
            "target": self._target.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "collector": self._collector.state_dict(),
            "generator": self._generator.get_state(),
            "steps": self._steps,
            "updates": self._updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where the saved run was, bit for bit."""
        self._learned.load_state_dict(state["learned"])
        self._target.load_state_dict(state["target"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._collector.load_state_dict(state["collector"])
        self._generator.set_state(state["generator"].cpu())
        self._steps, self._updates = state["steps"], state["updates"]
