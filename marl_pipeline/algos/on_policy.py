"""PPO, IPPO and MAPPO on any environment of the protocol: collect a rollout, learn from it, forget it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from marl_pipeline.algos.common.actor_critic import CriticView, GroupActorCritic
from marl_pipeline.algos.common.actors import Actors
from marl_pipeline.algos.common.algorithm import Iteration, Memory, load_into
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.algos.common.messages import Message, delivered, with_message
from marl_pipeline.algos.common.rollout import Collector
from marl_pipeline.algos.common.utilisation import Utilisation, utilisation
from marl_pipeline.algos.mappo import MAPPOSettings
from marl_pipeline.algos.ppo import PPO, PPOSettings
from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.envs.wrappers import SharedReward
from marl_pipeline.errors import UserError
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction
from marl_pipeline.seeding import stream


class OnPolicy:
    """Implements `Algorithm`: one PPO learner for each group that learns, with local or central critics.

    Args:
        settings: of every group, or of each by its name; a group without a central critic is that of PPO.
        timesteps: environment steps of the whole run, which the learning rates' schedules are laid over.
        learn: names of the groups that learn, all by default; the others act by their mode and keep their weights.
        message: what one group shows another at every step.

    Raises:
        UserError: a group has no settings, there is nobody to learn, or the settings of the groups contradict.
    """

    def __init__(
        self,
        environment: Environment,
        inputs: Inputs,
        settings: PPOSettings | Mapping[str, PPOSettings],
        *,
        seed: int,
        timesteps: int,
        reduction: Reduction = NO_REDUCTION,
        learn: Collection[str] | None = None,
        message: Message | None = None,
    ) -> None:
        specs = with_message(environment.groups, message)
        inputs = inputs.of(specs) if message is not None else inputs
        unknown = [name for name in specs if not isinstance(settings, PPOSettings) and name not in settings]
        if unknown:
            raise UserError(f"no settings for group {', '.join(unknown)}")
        self.settings = {name: settings if isinstance(settings, PPOSettings) else settings[name] for name in specs}
        learning = [name for name in specs if learn is None or name in learn]
        if not learning:
            raise UserError(
                f"nobody learns: the groups here are {', '.join(specs)}, to learn is {', '.join(learn or ())}"
            )
        rewards = {self.settings[name].reward for name in learning}
        if len(rewards) > 1:
            raise UserError("reward: groups that learn together are paid alike, all `team` or all `agent`")
        if rewards == {"team"}:
            environment = SharedReward(environment)
        self.horizon = max(self.settings[name].horizon for name in learning)
        self._timesteps, self._steps = timesteps, 0
        device = environment.device
        self.groups = {
            name: GroupActorCritic(
                name,
                spec,
                inputs,
                environment.state_size,
                _critic(self.settings[name]),
                self.settings[name].network,
                normalise_values=self.settings[name].normalise_values,
                generator=stream(seed, f"{name} network"),
                device=device,
            )
            for name, spec in specs.items()
        }
        self._reduction = reduction
        self.learners = {name: PPO(self.groups[name], self.settings[name], reduction=reduction) for name in learning}
        self._actors = Actors(self.groups, environment.num_envs, device, learning=learning, message=message)
        self._policy = OnPolicyPolicy(self.groups, device, explores=learning, message=message)
        own_seed = reduction.own_seed(seed)
        self._minibatches = stream(own_seed, "minibatches")
        self._collector = Collector(environment, self._actors, stream(own_seed, "actions", device))

    @property
    def policy(self) -> OnPolicyPolicy:
        return self._policy

    def iterate(self) -> Iteration:
        """One rollout and the update on it."""
        progress = min(self._steps / self._timesteps, 1.0)
        experience = self._collector.collect(self.horizon)
        metrics: dict[str, float] = {}
        for name, learner in self.learners.items():
            rate = learner.settings.learning_rate.at(progress)
            learner.set_learning_rate(rate)
            figures = learner.update(experience[name], self._minibatches)
            figures["reward_per_step"] = float(experience[name].reward.mean())
            figures["learning_rate"] = rate
            self.groups[name].absorb(experience[name].inputs, self._reduction)
            metrics |= {f"{name}/{figure}": value for figure, value in figures.items()}
        taken = self.horizon * self._collector.environment.num_envs
        self._steps += taken
        return Iteration(taken, metrics)

    def utilisation(self, rounds: int = 5) -> Utilisation:
        """Of the updates on one rollout, which change the weights: for measurements, not in the midst of a run.

        Without a `target_kl`, so that every update does the same work.
        """
        experience = self._collector.collect(self.horizon)

        def update() -> None:
            for name, learner in self.learners.items():
                learner.update(experience[name], self._minibatches)

        return utilisation(update, device=self._collector.environment.device, rounds=rounds)

    def weights(self) -> dict[str, Tensor]:
        """All that was learned, critics and units of values included: what `load_weights` can start from."""
        return {
            f"{name}.{key}": tensor.detach().clone()
            for name, group in self.groups.items()
            for key, tensor in group.module.state_dict().items()
        }

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Starts the groups that `weights` has from there; the others keep theirs.

        Raises:
            UserError: the weights of a group do not fit.
        """
        for name, group in self.groups.items():
            own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
            if own:
                load_into(group.module, own, f"group {name}")

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self._steps,
            "learners": {name: learner.state_dict() for name, learner in self.learners.items()},
            "actors": self._actors.state_dict(),
            "minibatches": self._minibatches.get_state(),
            "collector": self._collector.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._steps = int(state["steps"])
        for name, learner in self.learners.items():
            learner.load_state_dict(state["learners"][name])
        self._collector.load_state_dict(state["collector"])
        self._actors.load_state_dict(state["actors"])
        self._minibatches.set_state(state["minibatches"])


def _critic(settings: PPOSettings) -> CriticView:
    return settings.critic if isinstance(settings, MAPPOSettings) else "local"


class OnPolicyPolicy:
    """Implements `Policy`: the actors alone.

    Args:
        explores: names of the groups that sample when the policy explores; the others take their mode all the same.
        message: what one group shows another at every step.
    """

    def __init__(
        self,
        groups: Mapping[str, GroupActorCritic],
        device: torch.device,
        *,
        explores: Collection[str],
        message: Message | None,
    ) -> None:
        self._groups, self._device, self._explores, self._message = groups, device, frozenset(explores), message
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
        actions, remembered = dict[str, Tensor](), dict(memory)
        shown: Tensor | None = None
        for name, group in self._groups.items():
            step = timestep.groups[name]
            if self._message is not None and name == self._message.receiver and shown is not None:
                step = delivered(step, self._message.field, shown)
            parameters, kept = group.act(step, memory.get(name))
            if self._message is not None and name == self._message.sender:
                shown = self._message(parameters, step.action_mask)
            policy = group.distribution(parameters, step.action_mask)
            explores = generator is not None and name in self._explores
            actions[name] = policy.sample(generator) if explores and generator is not None else policy.mode()
            if kept is not None:
                remembered[name] = kept
        return actions, remembered
