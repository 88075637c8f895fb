"""PPO and MAPPO on RLlib's new API stack, from the project's own settings and environments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
from gymnasium.spaces import Box, Dict
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.rl_module import MultiRLModuleSpec, RLModuleSpec
from ray.tune.registry import register_env

from marl_pipeline.algos.mappo import MAPPOSettings
from marl_pipeline.algos.ppo import PPOSettings
from marl_pipeline.checkpoint import State
from marl_pipeline.envs.bridges.exports.features import MakeEnvironment
from marl_pipeline.envs.bridges.exports.rllib import RLlibMultiAgentEnv
from marl_pipeline.envs.protocol import Discrete, Environment, closing
from marl_pipeline.errors import UserError
from marl_pipeline.progress import silent
from marl_pipeline.seeding import stream_seed
from marl_pipeline.training.engines.cluster import connected
from marl_pipeline.training.engines.outside import (
    Watch,
    on_policy_settings,
    one_thread,
    row_features,
    training_environment,
)
from marl_pipeline.training.engines.rllib_module import ActorCriticModule, MAPPOLearner
from marl_pipeline.training.engines.task import Task, Trained, blank_policy

CURVE = 20
"""Pieces of the piecewise linear learning rate that stands for a schedule."""


def train(task: Task) -> Trained:
    """Trains by RLlib's own sampling, advantages and update; one policy for each group, shared by its agents.

    With `workers` 1 everything happens in this process; with n, n processes collect and this one learns. A run that was
    interrupted goes on from its weights and optimizers with new episodes: it does not end in the same bytes.

    Raises:
        UserError: the algorithm, or something that its settings ask for, has no counterpart there.
    """
    settings = on_policy_settings(task, "rllib", (Discrete,))
    if task.num_envs % task.workers:
        raise UserError(
            f"engine rllib: {task.num_envs} environments cannot be shared equally by {task.workers} workers"
        )
    saved = task.checkpoint.load()
    with one_thread(), connected(cpus=1 + task.workers):
        algorithm = _config(task, settings, 0 if saved is None else int(saved["steps"])).build_algo()
        try:
            return _loop(task, algorithm, saved)
        finally:
            algorithm.stop()


class CentralEnv(RLlibMultiAgentEnv):
    """The adapter's environment whose observations also hold `"state"`, [S] the global state: only critics read it."""

    def __init__(self, make: MakeEnvironment, **shown: Any) -> None:
        super().__init__(make, **shown)
        state = Box(-np.inf, np.inf, (self._named.state_size,), np.float32)
        self.observation_spaces = {
            name: Dict({**cast(Dict, space).spaces, "state": state}) for name, space in self.observation_spaces.items()
        }
        self.observation_space = Dict(self.observation_spaces)

    def reset(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        seen, infos = super().reset(**options)
        return self._with_state(seen), infos

    def step(
        self, action_dict: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        seen, reward, terminated, truncated, infos = super().step(action_dict)
        return self._with_state(seen), reward, terminated, truncated, infos

    def _with_state(self, seen: Mapping[str, Any]) -> dict[str, Any]:
        state = self._named.state
        return {name: {**fields, "state": state} for name, fields in seen.items()}


def _loop(task: Task, algorithm: Algorithm, saved: State | None) -> Trained:
    learner, policy = _learner(algorithm), blank_policy(task)

    def load() -> None:
        for group in learner.module.keys():  # noqa: SIM118 (not a mapping)
            actor = _module(learner, group).actor
            policy.module.get_submodule(group).load_state_dict(actor.state_dict())

    watch = Watch(task, policy, load)
    if saved is not None:
        watch.resume(saved)
        _restore(algorithm, saved["learner"])
    start, unsaved, over = watch.steps, 0, watch.steps >= task.timesteps
    while not over:
        result = algorithm.train()
        steps = start + int(result["num_env_steps_sampled_lifetime"])
        unsaved += steps - watch.steps
        over = watch.after_iteration(steps, _figures(result["learners"]))
        if over or unsaved >= task.checkpoint_every:
            task.checkpoint.save(watch.state() | {"learner": _state(learner)})
            unsaved = 0
    return watch.trained()


def _config(task: Task, settings: PPOSettings, start: int) -> PPOConfig:
    """RLlib's words for the settings, of a run that has taken `start` steps already.

    RLlib counts a multi-agent batch and its minibatches in decisions of agents here, so that a minibatch may have more
    of them than the rollout has steps.
    """
    task = replace(task, on_step=silent)  # runners are sent what makes environments; progress stays here
    adapter = CentralEnv if isinstance(settings, MAPPOSettings) else RLlibMultiAgentEnv
    features = row_features(task)

    def make(seed: int) -> Environment:
        return training_environment(task, 1, seed, settings.reward)

    def create(context: Any) -> RLlibMultiAgentEnv:
        seed = stream_seed(task.seed, f"runner {context.worker_index}, start {start}")
        return adapter(make, features=features, seed=seed)

    register_env("marl_pipeline", create)
    with closing(make(task.seed)) as environment:
        groups = environment.groups
    probe = adapter(make, features=features, seed=task.seed)
    probe.close()
    modules = {
        group: RLModuleSpec(
            module_class=ActorCriticModule,
            observation_space=probe.get_observation_space(f"{group}_0"),
            action_space=probe.get_action_space(f"{group}_0"),
            model_config={"settings": settings, "seed": stream_seed(task.seed, f"{group} network")},
        )
        for group in groups
    }
    decisions = task.num_envs * settings.horizon * sum(spec.agents for spec in groups.values())
    runners = 0 if task.workers == 1 else task.workers
    left = max(task.timesteps - start, 1)
    ahead = [round(left * piece / CURVE) for piece in range(CURVE + 1)]
    rates = [[steps, settings.learning_rate.at(min((start + steps) / task.timesteps, 1.0))] for steps in ahead]
    return (
        PPOConfig()
        .environment("marl_pipeline", disable_env_checking=True)
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=task.num_envs // task.workers)
        .learners(
            learner_class=MAPPOLearner, num_learners=0, num_gpus_per_learner=1 if task.device.type == "cuda" else 0
        )
        .multi_agent(policies=set(groups), policy_mapping_fn=_group_of, count_steps_by="agent_steps")
        .rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=modules))
        .training(
            lr=rates,
            gamma=settings.gamma,
            lambda_=settings.gae_lambda,
            clip_param=settings.clip,
            num_epochs=settings.epochs,
            train_batch_size_per_learner=decisions,
            minibatch_size=decisions // settings.minibatches,
            entropy_coeff=settings.entropy,
            vf_loss_coeff=settings.value_coefficient,
            use_kl_loss=False,
            grad_clip=settings.max_grad_norm,
            grad_clip_by="global_norm",
        )
        .debugging(seed=stream_seed(task.seed, f"rllib from {start}") % 2**31, log_level="ERROR")
    )


def _group_of(agent: str, *_: Any, **__: Any) -> str:
    """Agents are called `<group>_<index>`."""
    return agent.rsplit("_", 1)[0]


def _learner(algorithm: Algorithm) -> Learner:
    """The one learner, which lives in this process."""
    return algorithm.learner_group._learner


def _module(learner: Learner, group: str) -> ActorCriticModule:
    module: ActorCriticModule = learner.module[group].unwrapped()
    return module


def _state(learner: Learner) -> State:
    return {
        group: {
            "module": _module(learner, group).state_dict(),
            "optimizers": [optimizer.state_dict() for _, optimizer in learner.get_optimizers_for_module(group)],
        }
        for group in learner.module.keys()  # noqa: SIM118
    }


def _restore(algorithm: Algorithm, state: State) -> None:
    learner = _learner(algorithm)
    for group, saved in state.items():
        _module(learner, group).load_state_dict(saved["module"])
        optimizers = [optimizer for _, optimizer in learner.get_optimizers_for_module(group)]
        for optimizer, held in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(held)
    algorithm.env_runner_group.sync_weights(from_worker_or_learner_group=algorithm.learner_group, inference_only=True)


def _figures(results: Mapping[str, Any]) -> dict[str, float]:
    """What the learner measured, `<group>/<figure>`."""
    wanted = {"policy_loss": "policy_loss", "vf_loss": "value_loss", "entropy": "entropy"}
    return {
        f"{group}/{ours}": float(figures[theirs])
        for group, figures in results.items()
        for theirs, ours in wanted.items()
        if theirs in figures
    }
