"""PPO, IPPO and MAPPO on any environment of the protocol: collect a rollout, learn from it, forget it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from marl_pipeline.algos.common.actor_critic import GroupActorCritic
from marl_pipeline.algos.common.algorithm import Advance, Memory
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.algos.common.rollout import Collector, Decision
from marl_pipeline.algos.common.utilisation import Utilisation, utilisation
from marl_pipeline.algos.mappo import MAPPO, MAPPOSettings
from marl_pipeline.algos.ppo import PPO, PPOSettings
from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.envs.wrappers import SharedReward
from marl_pipeline.nn.reduction import ALONE, Reduction
from marl_pipeline.seeding import stream


class OnPolicy:
    """Implements `Algorithm`: one PPO (local critics) or MAPPO (central critics) learner for each group.

    Args:
        timesteps: environment steps of the whole run, which the learning rate's schedule is laid over.
    """

    def __init__(
        self,
        environment: Environment,
        inputs: Inputs,
        settings: PPOSettings,
        *,
        seed: int,
        timesteps: int,
        reduction: Reduction = ALONE,
    ) -> None:
        if settings.reward == "team":
            environment = SharedReward(environment)
        self.settings = settings
        self._timesteps, self._steps = timesteps, 0
        device = environment.device
        groups = {
            name: GroupActorCritic(
                name,
                spec,
                inputs,
                environment.state_size,
                settings.critic if isinstance(settings, MAPPOSettings) else "local",
                settings.network,
                normalise_values=settings.normalise_values,
                generator=stream(seed, f"{name} network"),
                device=device,
            )
            for name, spec in environment.groups.items()
        }
        self._groups, self._reduction = groups, reduction
        self.learners = {name: _learner(group, settings, reduction) for name, group in groups.items()}
        self._team = Team(groups, environment.num_envs, device)
        self._policy = OnPolicyPolicy(groups, device)
        own_seed = reduction.own_seed(seed)
        self._minibatches = stream(own_seed, "minibatches")
        self._collector = Collector(
            environment, self._team, stream(own_seed, "actions", device), on_reset=self._team.forget
        )

    @property
    def policy(self) -> OnPolicyPolicy:
        return self._policy

    def advance(self) -> Advance:
        """One rollout and the update on it."""
        rate = self.settings.learning_rate.at(min(self._steps / self._timesteps, 1.0))
        experience = self._collector.collect(self.settings.horizon)
        metrics: dict[str, float] = {"learning_rate": rate}
        for name, learner in self.learners.items():
            learner.set_learning_rate(rate)
            figures = learner.update(experience[name], self._minibatches)
            figures["reward_per_step"] = float(experience[name].reward.mean())
            self._groups[name].absorb(experience[name].inputs, self._reduction)
            metrics |= {f"{name}/{figure}": value for figure, value in figures.items()}
        taken = self.settings.horizon * self._collector.environment.num_envs
        self._steps += taken
        return Advance(taken, metrics)

    def utilisation(self, rounds: int = 5) -> Utilisation:
        """Of the updates on one rollout, which change the weights: for measurements, not in the midst of a run.

        Without a `target_kl`, so that every update does the same work.
        """
        experience = self._collector.collect(self.settings.horizon)

        def update() -> None:
            for name, learner in self.learners.items():
                learner.update(experience[name], self._minibatches)

        return utilisation(update, device=self._collector.environment.device, rounds=rounds)

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self._steps,
            "learners": {name: learner.state_dict() for name, learner in self.learners.items()},
            "team": self._team.state_dict(),
            "minibatches": self._minibatches.get_state(),
            "collector": self._collector.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._steps = int(state["steps"])
        for name, learner in self.learners.items():
            learner.load_state_dict(state["learners"][name])
        self._collector.load_state_dict(state["collector"])
        self._team.load_state_dict(state["team"])
        self._minibatches.set_state(state["minibatches"])


def _learner(group: GroupActorCritic, settings: PPOSettings, reduction: Reduction) -> PPO:
    return MAPPO(
        group,
        settings,
        norm=group.norm,
        distribution=group.distribution,
        chunk=settings.chunk,
        acceleration=settings.acceleration,
        fused=True,
        reduction=reduction,
    )


class Team:
    """All groups as the collector asks them (`rollout.Controller`), with what they remember of their episodes."""

    def __init__(self, groups: Mapping[str, GroupActorCritic], num_envs: int, device: torch.device) -> None:
        self._groups = groups
        self._memory: dict[str, Tensor] = {}
        for name, group in groups.items():
            if group.recurrent:
                width = group.width
                self._memory[f"{name}.actor"] = torch.zeros(num_envs, group.spec.agents, width, device=device)
                self._memory[f"{name}.critic"] = torch.zeros(num_envs, group.critic.rows, width, device=device)
        self._fresh = torch.ones(num_envs, dtype=torch.bool, device=device)

    @torch.no_grad()
    def decide(self, timestep: Timestep, generator: torch.Generator | None) -> dict[str, Decision]:
        decisions = {name: self._decide(group, timestep, generator) for name, group in self._groups.items()}
        if generator is not None:
            self._fresh = torch.zeros_like(self._fresh)
        return decisions

    def _decide(self, group: GroupActorCritic, timestep: Timestep, generator: torch.Generator | None) -> Decision:
        step = timestep.groups[group.name]
        inputs = group.stored(step, timestep.state)
        if group.recurrent:
            inputs["fresh"] = self._fresh
            inputs["actor_memory"] = self._memory[f"{group.name}.actor"]
            inputs["critic_memory"] = self._memory[f"{group.name}.critic"]
        output = group.output(inputs)
        policy = group.distribution(output.parameters, step.action_mask)
        action = policy.mode() if generator is None else policy.sample(generator)
        if generator is not None and output.actor_memory is not None and output.critic_memory is not None:
            self._memory[f"{group.name}.actor"] = output.actor_memory
            self._memory[f"{group.name}.critic"] = output.critic_memory
        return Decision(inputs, action, policy.log_prob(action), output.value)

    def forget(self, where: Tensor) -> None:
        """The copies of the [E] mask start new episodes."""
        self._fresh = self._fresh | where
        self._memory = {key: kept.masked_fill(where[:, None, None], 0.0) for key, kept in self._memory.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"fresh": self._fresh, "memory": dict(self._memory)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._fresh = state["fresh"].to(self._fresh.device)
        self._memory = {key: state["memory"][key].to(kept.device) for key, kept in self._memory.items()}


class OnPolicyPolicy:
    """Implements `Policy`: the actors alone."""

    def __init__(self, groups: Mapping[str, GroupActorCritic], device: torch.device) -> None:
        self._groups, self._device = groups, device
        self._module = nn.ModuleDict({name: group.actor for name, group in groups.items()})

    @property
    def module(self) -> nn.Module:
        return self._module

    def start(self, num_envs: int) -> Memory:
        return {
            name: torch.zeros(num_envs, group.spec.agents, group.width, device=self._device)
            for name, group in self._groups.items()
            if group.recurrent
        }

    @torch.no_grad()
    def act(
        self, timestep: Timestep, memory: Memory, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Memory]:
        actions, remembered = {}, dict(memory)
        for name, group in self._groups.items():
            step = timestep.groups[name]
            parameters, kept = group.act(step, memory.get(name))
            policy = group.distribution(parameters, step.action_mask)
            actions[name] = policy.mode() if generator is None else policy.sample(generator)
            if kept is not None:
                remembered[name] = kept
        return actions, remembered
