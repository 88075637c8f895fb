"""PPO, MaskablePPO and DQN of Stable-Baselines3: for single agents, and as a yardstick for the project's own.

One group learns, its agents as rows that share one policy; critics see what actors see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium.spaces import Box
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor, nn

from marl_pipeline.algos.engines.outside import (
    Watch,
    on_policy_settings,
    one_thread,
    row_features,
    training_environment,
    transfer,
)
from marl_pipeline.algos.engines.task import Task, Trained, blank_policy
from marl_pipeline.algos.mappo import MAPPOSettings
from marl_pipeline.algos.ppo import NetworkSettings, PPOSettings
from marl_pipeline.checkpoint import State
from marl_pipeline.envs.adapters.stable_baselines3 import StableBaselines3VecEnv
from marl_pipeline.envs.protocol import Environment
from marl_pipeline.errors import UserError
from marl_pipeline.seeding import stream_seed

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class NormalisedRows(BaseFeaturesExtractor):
    """LayerNorm on the rows that come in, as `network.normalise_inputs` asks for."""

    def __init__(self, observation_space: Box) -> None:
        super().__init__(observation_space, observation_space.shape[0])
        self.norm = nn.LayerNorm(observation_space.shape[0])

    def forward(self, observations: Tensor) -> Tensor:
        normalised: Tensor = self.norm(observations)
        return normalised


def train(task: Task) -> Trained:
    """Trains PPO, or MaskablePPO where the environment forbids actions from the start, in this process.

    A run that was interrupted goes on from its weights and optimizer with new episodes: it does not end in the same
    bytes.

    Raises:
        UserError: the algorithm, or something that its settings ask for, has no counterpart there; several groups.
    """
    settings = on_policy_settings(task, "sb3")
    if isinstance(settings, MAPPOSettings):
        raise UserError("engine sb3: it has no central critic: choose ppo, or engine torch or rllib")
    if task.workers != 1:
        raise UserError(f"engine sb3: it is one process (workers 1, found {task.workers})")
    saved = task.checkpoint.load()
    start = 0 if saved is None else int(saved["steps"])
    with one_thread():
        environment = _rows(task, settings.reward, stream_seed(task.seed, f"sb3 from {start}") % 2**31)
        model = _ppo(task, settings, environment)
        return _learn(task, model, saved)


def _rows(task: Task, reward: str, seed: int) -> StableBaselines3VecEnv:
    def make(seed: int) -> Environment:
        return training_environment(task, task.num_envs, seed, reward)

    groups = make(seed).groups
    if len(groups) > 1:
        raise UserError(f"engine sb3: one group learns, here are {sorted(groups)}: choose engine torch or rllib")
    return StableBaselines3VecEnv(make, features=row_features(task), seed=seed)


def _ppo(task: Task, settings: PPOSettings, rows: StableBaselines3VecEnv) -> OnPolicyAlgorithm:
    """Stable-Baselines3's words for the settings.

    Where values are to be normalised it scales the rewards by the deviation of their discounted sum, its own idiom; it
    has no Huber loss.
    """
    environment: VecEnv = rows
    if settings.normalise_values:
        environment = VecNormalize(rows, norm_obs=False, norm_reward=True, gamma=settings.gamma)
    batch = rows.num_envs * settings.horizon
    free = bool(rows.action_masks().all())
    chosen: type[Any] = PPO if free else MaskablePPO
    model: OnPolicyAlgorithm = chosen(
        "MlpPolicy",
        environment,
        learning_rate=lambda left: settings.learning_rate.at(min(max(1.0 - left, 0.0), 1.0)),
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
        seed=stream_seed(task.seed, "sb3") % 2**31,
        device=task.device,
    )
    return model


def _networks(network: NetworkSettings) -> dict[str, Any]:
    return {
        "net_arch": {"pi": list(network.hidden), "vf": list(network.hidden)},
        "activation_fn": ACTIVATIONS[network.activation],
        "features_extractor_class": NormalisedRows if network.normalise_inputs else FlattenExtractor,
        "share_features_extractor": False,
    }


def _actor(model: OnPolicyAlgorithm) -> list[Tensor]:
    """The parameters that decide, from the observation to the logits."""
    policy: Any = model.policy
    parts = (policy.pi_features_extractor, policy.mlp_extractor.policy_net, policy.action_net)
    return [parameter for part in parts for parameter in part.parameters()]


def _learn(task: Task, model: OnPolicyAlgorithm, saved: State | None) -> Trained:
    policy = blank_policy(task)
    watch = Watch(task, policy, lambda: transfer(_actor(model), list(policy.module.parameters())))
    agents = model.n_envs // task.num_envs
    if saved is not None:
        watch.resume(saved)
        model.policy.load_state_dict(saved["policy"])
        model.policy.optimizer.load_state_dict(saved["optimizer"])
        model.num_timesteps = watch.steps * agents
    left = task.timesteps - watch.steps
    if left > 0:
        turns = _Turns(task, watch, agents)
        model.learn(left * agents, callback=turns, reset_num_timesteps=saved is None)
        turns.turn()
    return watch.trained()


class _Turns(BaseCallback):
    """Tells the watch of every rollout that has been learned from."""

    def __init__(self, task: Task, watch: Watch, agents: int) -> None:
        super().__init__()
        self._task, self._watch, self._agents, self._saved = task, watch, agents, watch.steps

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        """The update on the rollout before is made; the last one's end is `turn` after learning."""
        self.turn()

    def turn(self) -> None:
        steps = self.model.num_timesteps // self._agents
        if steps == self._watch.steps:
            return
        figures = {
            name.removeprefix("train/"): float(value)
            for name, value in self.model.logger.name_to_value.items()
            if name.startswith("train/")
        }
        over = self._watch.turn(steps, figures)
        if over or steps - self._saved >= self._task.checkpoint_every:
            self._saved = steps
            held = {"policy": self.model.policy.state_dict(), "optimizer": self.model.policy.optimizer.state_dict()}
            self._task.checkpoint.save(self._watch.state() | held)
