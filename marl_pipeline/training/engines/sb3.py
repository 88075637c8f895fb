"""MaskablePPO and DQN of Stable-Baselines3: for single agents, and as a yardstick for the project's own.

One group learns, its agents as rows that share one policy; critics see what actors see.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor, nn

from marl_pipeline.algos.common.actor_critic import ActorCriticSettings
from marl_pipeline.algos.common.schedules import Schedule
from marl_pipeline.algos.idqn import IDQNSettings
from marl_pipeline.algos.mappo import MAPPOSettings
from marl_pipeline.algos.ppo import PPOSettings
from marl_pipeline.checkpoint import State
from marl_pipeline.envs.bridges.exports.stable_baselines3 import StableBaselines3VecEnv
from marl_pipeline.envs.protocol import Discrete, Environment, MultiDiscrete, closing
from marl_pipeline.errors import UserError
from marl_pipeline.nn.running_norm import RunningNorm
from marl_pipeline.seeding import stream_seed
from marl_pipeline.training.engines.outside import (
    Measured,
    Watch,
    on_policy_settings,
    one_thread,
    require_plain,
    require_spaces,
    row_features,
    training_environment,
    transfer,
)
from marl_pipeline.training.engines.task import Task, Trained, blank_policy

ACTOR_GAIN = 0.01
"""Of the actor's last layer, as the library initialises it."""

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class NormalisedRows(BaseFeaturesExtractor):
    """Rows less their running mean, over their running deviation, as `network.normalise_inputs` asks for."""

    def __init__(self, observation_space: Box) -> None:
        super().__init__(observation_space, observation_space.shape[0])
        self.norm = RunningNorm(observation_space.shape[0])

    def forward(self, observations: Tensor) -> Tensor:
        normalised: Tensor = self.norm(observations)
        return normalised


def train(task: Task) -> Trained:
    """Trains in this process: DQN by the settings of `idqn`; by those of `ppo`, MaskablePPO, which is PPO as long as
    nothing is forbidden. Masks may begin at any step, so PPO itself, which cannot obey them, is never used.

    A run that was interrupted goes on from its weights and optimizer with new episodes (DQN with an empty replay): it
    does not end in the same bytes.

    Raises:
        UserError: the algorithm, or something that its settings ask for, has no counterpart there; several groups.
    """
    if task.workers != 1:
        raise UserError(f"engine sb3: it is one process (workers 1, found {task.workers})")
    if isinstance(task.settings, MAPPOSettings):
        raise UserError("engine sb3: it has no central critic: choose ppo, or engine torch or rllib")
    saved = task.checkpoint.load()
    seed = stream_seed(task.seed, f"sb3 from {0 if saved is None else saved['steps']}") % 2**31
    given = task.settings
    settings = given if isinstance(given, IDQNSettings) else on_policy_settings(task, "sb3", (Discrete, MultiDiscrete))
    measured = Measured(task.metrics)
    with one_thread(), contextlib.closing(_rows(task, settings.reward, seed, measured)) as rows:
        if isinstance(settings, IDQNSettings):
            learner = _dqn(task, settings, rows, seed)
        else:
            learner = _ppo(task, settings, rows, seed)
        return _learn(task, learner, rows, saved, measured)


@dataclass(frozen=True)
class Learner:
    """A model of the library, and the parameters of it that decide, from the observation to logits or values.

    Attributes:
        scale: what it divides rewards by, where it does.
        norms: of the actor's inputs and of the critic's, where they are normalised.
    """

    model: BaseAlgorithm
    deciding: Sequence[nn.Module]
    optimizer: torch.optim.Optimizer
    scale: VecNormalize | None = None
    norms: Sequence[RunningNorm] = ()

    @property
    def parameters(self) -> list[Tensor]:
        return [parameter for part in self.deciding for parameter in part.parameters()]

    def load_into(self, module: nn.Module) -> None:
        """Brings what decides into a policy of the project."""
        transfer(self.parameters, list(module.parameters()))
        for norm in (part for part in module.modules() if isinstance(part, RunningNorm)):
            norm.load_state_dict(self.norms[0].state_dict())

    def state(self) -> State:
        """What a checkpoint needs of it."""
        held = {"policy": self.model.policy.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.scale is None:
            return held
        moments = self.scale.ret_rms
        return held | {"reward_moments": [float(moments.mean), float(moments.var), float(moments.count)]}

    def resume(self, saved: State) -> None:
        self.model.policy.load_state_dict(saved["policy"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scale is not None:
            mean, variance, count = saved["reward_moments"]
            moments = self.scale.ret_rms
            moments.mean, moments.var, moments.count = np.asarray(mean), np.asarray(variance), count


def _rows(task: Task, reward: str, seed: int, measured: Measured) -> StableBaselines3VecEnv:
    def make(seed: int) -> Environment:
        return training_environment(task, task.num_envs, seed, reward, measured)

    with closing(make(seed)) as environment:
        groups = environment.groups
    if len(groups) > 1:
        raise UserError(f"engine sb3: one group learns, here are {sorted(groups)}: choose engine torch or rllib")
    return StableBaselines3VecEnv(make, features=row_features(task), seed=seed)


def _ppo(task: Task, settings: PPOSettings, rows: StableBaselines3VecEnv, seed: int) -> Learner:
    """Stable-Baselines3's words for the settings.

    Where values are to be normalised it scales the rewards by the deviation of their discounted sum, its own idiom; it
    has no Huber loss.
    """
    gain = settings.network.actor_gain
    if gain != ACTOR_GAIN:
        raise UserError(f"engine sb3: network.actor_gain must be {ACTOR_GAIN} (found {gain}): choose engine torch")
    scale = None
    if settings.normalise_values:
        scale = VecNormalize(rows, norm_obs=False, norm_reward=True, gamma=settings.gamma)
    batch = rows.num_envs * settings.horizon
    model = MaskablePPO(
        "MlpPolicy",
        rows if scale is None else scale,
        learning_rate=_rate(settings.learning_rate),
        n_steps=settings.horizon,
        batch_size=batch // settings.minibatches,
        n_epochs=settings.epochs,
        gamma=settings.gamma,
        gae_lambda=settings.gae_lambda,
        clip_range=settings.clip,
        clip_range_vf=settings.clip,
        ent_coef=settings.entropy,
        vf_coef=settings.value_coefficient,
        max_grad_norm=settings.max_grad_norm,
        target_kl=settings.target_kl,
        policy_kwargs=_networks(settings.network),
        seed=seed,
        device=task.device,
    )
    policy = model.policy
    deciding = [policy.pi_features_extractor, policy.mlp_extractor.policy_net, policy.action_net]
    extractors = [policy.pi_features_extractor, policy.vf_features_extractor]
    norms = [extractor.norm for extractor in extractors if isinstance(extractor, NormalisedRows)]
    return Learner(model, deciding, policy.optimizer, scale, norms)


def _networks(network: ActorCriticSettings) -> dict[str, Any]:
    """Raises:
    UserError: a layer that the library's networks do not have.
    """
    if network.layer_norm:
        raise UserError("engine sb3: network.layer_norm must be false: choose engine torch")
    return {
        "net_arch": {"pi": list(network.hidden), "vf": list(network.hidden)},
        "activation_fn": ACTIVATIONS[network.activation],
        "features_extractor_class": NormalisedRows if network.normalise_inputs else FlattenExtractor,
        "share_features_extractor": False,
    }


def _dqn(task: Task, settings: IDQNSettings, rows: StableBaselines3VecEnv, seed: int) -> Learner:
    """Stable-Baselines3's words for the settings."""
    network = settings.network
    target_every, target_rate = target_clock(settings)
    require_spaces(task, "sb3", (Discrete,))
    require_plain(settings.acceleration, "sb3")
    plain = {
        "network.recurrence": (network.recurrence, "none"),
        "network.activation": (network.activation, "relu"),
        "network.duelling": (network.duelling, False),
        "network.layer_norm": (network.layer_norm, False),
        "network.share_parameters": (network.share_parameters, True),
        "network.agent_ids": (network.agent_ids, False),
        "optimizer.kind": (settings.optimizer.kind, "adam"),
        "double": (settings.double, False),
        "priorities": (settings.priorities, None),
        "huber_delta": (settings.huber_delta, 1.0),
        "reward_scale": (settings.reward_scale, 1.0),
        "exploration.kind": (settings.exploration.kind, "linear"),
    }
    for name, (found, possible) in plain.items():
        if found != possible:
            raise UserError(f"engine sb3: {name} must be {possible} (found {found}): choose dqn, or engine torch")
    _require_free(rows, 0)
    agents = rows.num_envs // task.num_envs
    model = DQN(
        "MlpPolicy",
        rows,
        learning_rate=_rate(settings.optimizer.learning_rate),
        buffer_size=settings.buffer_size * agents,
        learning_starts=settings.learning_starts * agents,
        batch_size=settings.batch * agents,
        tau=target_rate,
        gamma=settings.gamma,
        train_freq=settings.train_freq,
        gradient_steps=settings.gradient_steps,
        n_steps=settings.n_step,
        target_update_interval=target_every * rows.num_envs,
        exploration_fraction=settings.exploration.share,
        exploration_initial_eps=settings.exploration.start,
        exploration_final_eps=settings.exploration.end,
        max_grad_norm=settings.optimizer.max_grad_norm,
        policy_kwargs={
            "net_arch": list(network.hidden),
            "activation_fn": nn.ReLU,
            "optimizer_kwargs": {"eps": settings.optimizer.epsilon},
        },
        seed=seed,
        device=task.device,
    )
    return Learner(model, [model.q_net.q_net], model.policy.optimizer)


def _require_free(rows: StableBaselines3VecEnv, steps: int) -> None:
    """Raises:
    UserError: an agent that acts next may not choose every action.
    """
    forbidden = ~rows.action_masks().all(-1) & rows.acts()
    if forbidden.any():
        raise UserError(
            f"engine sb3: its DQN cannot leave out forbidden actions, and row {int(forbidden.argmax())} has some after "
            f"step {steps}: choose ppo, or engine torch"
        )


def target_clock(settings: IDQNSettings) -> tuple[int, float]:
    """Steps of every environment from one update of the target network to the next, and its rate.

    The project counts the learned network's updates, the library steps: several updates of the target network to a step
    become one of as large an effect.
    """
    follows = settings.gradient_steps / (settings.train_freq * settings.target.every)
    if follows > 1.0:
        return 1, 1.0 - (1.0 - settings.target.rate) ** follows
    return round(1.0 / follows), settings.target.rate


def _rate(schedule: Schedule) -> Callable[[float], float]:
    """By what is left of the run, as the library asks."""
    return lambda left: schedule.at(min(max(1.0 - left, 0.0), 1.0))


def _learn(
    task: Task, learner: Learner, rows: StableBaselines3VecEnv, saved: State | None, measured: Measured
) -> Trained:
    model, policy = learner.model, blank_policy(task)
    watch = Watch(
        task,
        policy,
        lambda: learner.load_into(policy.module),
        measured=measured,
    )
    model.set_logger(Logger(folder=None, output_formats=[]))  # its own would leave a folder behind
    agents = model.n_envs // task.num_envs
    if saved is not None:
        watch.resume(saved)
        learner.resume(saved)
        model.num_timesteps = watch.steps * agents
    left = task.timesteps - watch.steps
    if left > 0:
        iterations = _Iterations(task, watch, learner, rows, agents)
        model.learn(left * agents, callback=iterations, reset_num_timesteps=saved is None)
        iterations.after_iteration()
    return watch.trained()


class _Iterations(BaseCallback):
    """Tells the watch of every rollout that has been learned from."""

    def __init__(self, task: Task, watch: Watch, learner: Learner, rows: StableBaselines3VecEnv, agents: int) -> None:
        super().__init__()
        self._task, self._watch, self._learner, self._agents = task, watch, learner, agents
        self._rows, self._free = rows, isinstance(learner.model, DQN)
        self._saved = watch.steps

    def _on_step(self) -> bool:
        if self._free:
            _require_free(self._rows, self.num_timesteps // self._agents)
        return True

    def _on_rollout_start(self) -> None:
        """The update on the rollout before is made; the last one's end is `after_iteration` after learning."""
        self.after_iteration()

    def _on_rollout_end(self) -> None:
        """The update on this rollout is still to come: the statistics of the inputs stay as they are until then."""
        for norm in self._learner.norms:
            rows: np.ndarray[Any, Any] = self.model.rollout_buffer.observations  # type: ignore[attr-defined]
            norm.observe(torch.as_tensor(rows, device=self.model.device).flatten(0, 1))

    def after_iteration(self) -> None:
        steps = self.model.num_timesteps // self._agents
        if steps == self._watch.steps:
            return
        for norm in self._learner.norms:
            norm.absorb()
        figures = {
            name.removeprefix("train/"): float(value)
            for name, value in self.model.logger.name_to_value.items()
            if name.startswith("train/")
        }
        over = self._watch.after_iteration(steps, figures)
        if over or steps - self._saved >= self._task.checkpoint_every:
            self._saved = steps
            self._task.checkpoint.save(self._watch.state() | self._learner.state())
