"""Multi-agent deep deterministic policy gradient (Lowe et al. 2017).

Every agent acts on what it sees itself; in training a critic of its own sees what all agents of all groups see and do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from marl_pipeline.algos.common.action_codes import Ranges
from marl_pipeline.algos.common.algorithm import Iteration, Weights, load_into, require_finite
from marl_pipeline.algos.common.decentralised import DecentralisedActors
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.algos.common.noise import Noise
from marl_pipeline.algos.common.off_policy import Collector, OffPolicySettings
from marl_pipeline.algos.common.optimizer_step import OptimizerSettings, OptimizerStep, TargetRate, soft_update
from marl_pipeline.algos.common.replay import JointObservation, Replay
from marl_pipeline.algos.common.schedules import Probability
from marl_pipeline.config import Count, Positive
from marl_pipeline.envs.protocol import Environment
from marl_pipeline.errors import UserError
from marl_pipeline.nn.central_critics import CentralCritics
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction
from marl_pipeline.nn.settings import NetworkSettings
from marl_pipeline.seeding import stream


class MADDPGSettings(OffPolicySettings):
    """Everything that can be chosen.

    Attributes:
        network: of actors and critics alike; agents that share parameters have a first bias each.
        critic: what it sees, the `observations` of all agents, or the environment's `state`.
        critics: 2 are twins of which the smaller bounds the target (Fujimoto et al. 2018, section 4.2).
        policy_delay: critic updates per update of the actors and step of the targets.
        temperature: of the Gumbel-softmax of discrete actions.
        sample_target_choices: discrete target actions are drawn, or the most probable.
        target_noise, target_noise_clip: deviation and bound of the noise on continuous target actions, in units of half
            the range (target policy smoothing: Fujimoto et al. 2018, section 5.3).
        raw_penalty: weight of the mean square of the actors' raw outputs (logits), which keeps them from saturating:
            a choice that is never drawn again teaches the critic nothing, whose mistakes about it then stay.
        exploration_noise: exploration with continuous actions; discrete ones explore by being drawn.
        exploration: share of actions drawn uniformly from all allowed ones.
        batch: timesteps per update, with all their agents.
    """

    network: NetworkSettings
    critic: Literal["observations", "state"]
    critics: Literal[1, 2]
    actor_optimizer: OptimizerSettings
    critic_optimizer: OptimizerSettings
    policy_delay: Count
    target: TargetRate
    temperature: Positive
    sample_target_choices: bool
    target_noise: Annotated[float, Field(ge=0.0)]
    target_noise_clip: Annotated[float, Field(ge=0.0)]
    raw_penalty: Annotated[float, Field(ge=0.0)]
    exploration_noise: Noise
    exploration: Probability


@dataclass(frozen=True)
class View:
    """What the networks read of B timesteps.

    Attributes:
        rows: group -> [B, A, inputs], what each actor sees.
        joint: [B, W] what the critics see besides the actions.
        mask, acts, present, truncated: group -> as in `GroupStep`.
    """

    rows: dict[str, Tensor]
    joint: Tensor
    mask: dict[str, Tensor]
    acts: dict[str, Tensor]
    present: dict[str, Tensor]
    truncated: dict[str, Tensor]


class MADDPG:
    """Implements `algos.algorithm.Algorithm`.

    A transition's joint action is the active one: what an agent that waits for its clock decided last (before its
    first decision: action 0), and nothing of an absent one. So critics learn from every step of an agent with a
    future, also from those between its decisions; actors learn where they decided.

    Raises:
        UserError: the critics are to see a state that the environment does not have, or the networks are recurrent.
    """

    def __init__(
        self,
        environment: Environment,
        inputs: Inputs,
        settings: MADDPGSettings,
        *,
        seed: int,
        timesteps: int,
        reduction: Reduction = NO_REDUCTION,
    ) -> None:
        if settings.network.recurrence != "none":
            raise UserError(
                "maddpg: network.recurrence must be none: it learns from single transitions; qmix or mappo can"
            )
        if settings.critic == "state" and not environment.state_size:
            raise UserError("maddpg: critic: 'state', but this environment has none; choose 'observations'")
        settings = reduction.shared(settings, "batch", "buffer_size", "learning_starts")
        own_seed = reduction.own_seed(seed)
        self._environment, self._inputs, self._settings, self._timesteps = environment, inputs, settings, timesteps
        initial = stream(seed, "maddpg/initial")
        self.policy = DecentralisedActors(
            environment,
            inputs,
            network=settings.network,
            temperature=settings.temperature,
            noise=settings.exploration_noise,
            generator=initial,
        )
        self.critics = self._new_critics(initial)
        self.target_actors, self.target_critics = (
            deepcopy(learned).requires_grad_(False) for learned in (self.policy.module, self.critics)
        )
        self._actor_optimizer = OptimizerStep(self.policy.module.parameters(), settings.actor_optimizer, reduction)
        self._critic_optimizer = OptimizerStep(self.critics.parameters(), settings.critic_optimizer, reduction)
        first = environment.reset()
        self._replay = Replay(environment, first, buffer_size=settings.buffer_size, state=settings.critic == "state")
        self._collector = Collector(
            environment, first, self.policy, self._replay, stream(own_seed, "maddpg/explore", environment.device)
        )
        self._draws = stream(own_seed, "maddpg/draws")
        self._relaxation = stream(own_seed, "maddpg/relaxation", environment.device)
        self._targets = settings.acceleration.compiled(self.targets)
        self._critic_loss = settings.acceleration.compiled(self.critic_loss)
        self._actor_loss = settings.acceleration.compiled(self.actor_loss)
        self._steps, self._updates = 0, 0

    def _new_critics(self, generator: torch.Generator) -> nn.ModuleDict:
        settings, groups = self._settings, self._environment.groups
        observed = sum(spec.agents * self._inputs.width(name) for name, spec in groups.items())
        slot = observed if settings.critic == "observations" else self._environment.state_size
        width = slot + sum(spec.agents * self.policy.codes[name].width for name, spec in groups.items())
        critics = nn.ModuleDict()
        for name, spec in groups.items():
            action_width = self.policy.codes[name].width
            critics[name] = CentralCritics(
                settings.network,
                width=width,
                slot=slot,
                action_width=action_width,
                agents=spec.agents,
                replicas=settings.critics,
                generator=generator,
            )
            slot += spec.agents * action_width
        return critics.to(self._environment.device)

    def iterate(self) -> Iteration:
        """`train_freq` steps of every environment, then `gradient_steps` updates if there is enough to learn from."""
        s, progress = self._settings, min(self._steps / self._timesteps, 1.0)
        self.policy.noise_scale = s.exploration_noise.scale.at(progress)
        self.policy.random_share = s.exploration.at(progress)
        metrics = self._collector.collect(s.train_freq)
        steps = s.train_freq * self._environment.num_envs
        self._steps += steps
        if self._steps >= s.learning_starts:
            metrics |= _means([self._update(progress) for _ in range(s.gradient_steps)])
        return Iteration(steps, metrics)

    def _update(self, progress: float) -> dict[str, Tensor]:
        """Critics on one batch, and now and then the actors and the targets (Fujimoto et al. 2018, algorithm 1)."""
        s, device = self._settings, self._environment.device
        position = self._replay.draw(s.batch, 1, self._draws)
        batch = self._replay.transitions(position, n=1, gamma=s.gamma)
        valid = batch.valid.unsqueeze(-1)
        now, later = self._view(batch.now), self._view(batch.later)
        active = {name: self.policy.codes[name].encode(action) for name, action in batch.action.items()}
        alive = {
            name: (now.present[name] | (factor > 0)) & ~now.truncated[name] & valid
            for name, factor in batch.factor.items()
        }
        noise = self._noise(later, s.target_noise, choices=s.sample_target_choices)
        with s.acceleration.autocast(device):
            target = self._targets(later, active, batch.returns, batch.factor, noise)
            critic_loss, value = self._critic_loss(now, active, target, alive)
        critic_norm = self._critic_optimizer.step(critic_loss, progress, _rows(alive))
        figures = {"critic_loss": critic_loss.detach(), "q_mean": value, "critic_grad_norm": critic_norm}
        self._updates += 1
        if self._updates % s.policy_delay == 0:
            decided = {name: acts & valid for name, acts in now.acts.items()}
            noise = self._noise(now, 0.0, choices=True)
            with s.acceleration.autocast(device):
                actor_loss = self._actor_loss(now, active, decided, noise)
            actor_norm = self._actor_optimizer.step(actor_loss, progress, _rows(decided))
            soft_update(self.target_critics, self.critics, s.target.rate)
            soft_update(self.target_actors, self.policy.module, s.target.rate)
            figures |= {"actor_loss": actor_loss.detach(), "actor_grad_norm": actor_norm}
        return figures

    def _view(self, observation: JointObservation) -> View:
        rows = {
            name: self.policy.rows(name, seen.observation, seen.present) for name, seen in observation.groups.items()
        }
        return View(
            rows=rows,
            joint=observation.state
            if self._settings.critic == "state"
            else torch.cat([row.flatten(1) for row in rows.values()], dim=-1),
            mask={name: seen.action_mask for name, seen in observation.groups.items()},
            acts={name: seen.acts for name, seen in observation.groups.items()},
            present={name: seen.present for name, seen in observation.groups.items()},
            truncated={name: seen.truncated for name, seen in observation.groups.items()},
        )

    def _noise(self, view: View, scale: float, *, choices: bool) -> dict[str, Tensor]:
        """Group -> [B, A, width]: clipped and of deviation `scale` for ranges; for choices Gumbel's, or none."""
        drawn = {}
        for name, rows in view.rows.items():
            code = self.policy.codes[name]
            shape = torch.Size((*rows.shape[:-1], code.width))
            noise = code.noise(shape, self._relaxation, rows.device)
            if isinstance(code, Ranges):
                bound = self._settings.target_noise_clip
                drawn[name] = (scale * noise).clamp(-bound, bound)
            else:
                drawn[name] = noise if choices else torch.zeros_like(noise)
        return drawn

    @torch.no_grad()
    def targets(
        self,
        later: View,
        active: Mapping[str, Tensor],
        returns: Mapping[str, Tensor],
        factor: Mapping[str, Tensor],
        noise: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Group -> [B, A]: reward and discounted value of the target actors' joint action (Lowe et al. 2017, eq. 6).

        The smaller of twin critics' values. Who waits `later` goes on with its active action.
        """
        codes = {}
        for name, rows in later.rows.items():
            raw: Tensor = self.target_actors[name](rows).float()
            chosen = self.policy.codes[name].sample(raw, later.mask[name], noise[name])
            acts = later.acts[name] | later.truncated[name]  # the last state of who was truncated has a value
            codes[name] = torch.where(acts.unsqueeze(-1), chosen, active[name])
        joint = _joint_row(later, codes)
        values = {name: self.target_critics[name](joint).amin(0).float() for name in codes}
        return {name: self._settings.reward_scale * returns[name] + factor[name] * values[name] for name in codes}

    def critic_loss(
        self, now: View, active: Mapping[str, Tensor], target: Mapping[str, Tensor], weight: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Mean squared error over the entries of `weight` ([B, A] bool), summed over twins and groups; mean value."""
        joint = _joint_row(now, active)
        losses, means = [], []
        for name, critics in self.critics.items():
            value = critics(joint).float()
            losses += [_mean((twin - target[name]).square(), weight[name]) for twin in value]
            means.append(_mean(value[0].detach(), weight[name]))
        return torch.stack(losses).sum(), torch.stack(means).mean()

    def actor_loss(
        self, now: View, active: Mapping[str, Tensor], decided: Mapping[str, Tensor], noise: Mapping[str, Tensor]
    ) -> Tensor:
        """Minus each agent's value when it alone acts by its actor, the others as stored (Lowe et al. 2017, eq. 5).

        Mean over the entries of `decided` ([B, A] bool), summed over groups, with the squares of the actors' raw
        outputs times `raw_penalty`.
        """
        joint = _joint_row(now, active)
        losses = []
        for name, rows in now.rows.items():
            raw = self.policy.raw(name, rows).float()
            change = self.policy.codes[name].sample(raw, now.mask[name], noise[name]) - active[name]
            critics = cast(CentralCritics, self.critics[name])
            value = critics.deviating(joint, change)[0].float()
            penalty = self._settings.raw_penalty * raw.square().mean(-1)
            losses.append(_mean(penalty - value, decided[name]))
        return torch.stack(losses).sum()

    def weights(self) -> dict[str, Tensor]:
        """Actors and critics."""
        learned = {"actors": self.policy.module, "critics": self.critics}
        return {
            f"{part}.{name}": tensor.detach().clone()
            for part, module in learned.items()
            for name, tensor in module.state_dict().items()
        }

    def load_weights(self, weights: Weights) -> None:
        """Starts from there; the targets are equal to what was learned.

        Raises:
            UserError: they do not fit.
        """
        for part, module, target in (
            ("actors", self.policy.module, self.target_actors),
            ("critics", self.critics, self.target_critics),
        ):
            own = {name.removeprefix(f"{part}."): kept for name, kept in weights.items() if name.startswith(f"{part}.")}
            load_into(module, own, f"maddpg's {part}")
            target.load_state_dict(module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {
            "actors": self.policy.module.state_dict(),
            "critics": self.critics.state_dict(),
            "target_actors": self.target_actors.state_dict(),
            "target_critics": self.target_critics.state_dict(),
            "actor_optimizer": self._actor_optimizer.state_dict(),
            "critic_optimizer": self._critic_optimizer.state_dict(),
            "collector": self._collector.state_dict(),
            "draws": self._draws.get_state(),
            "relaxation": self._relaxation.get_state(),
            "steps": self._steps,
            "updates": self._updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where the saved run was, bit for bit."""
        self.policy.module.load_state_dict(state["actors"])
        self.critics.load_state_dict(state["critics"])
        self.target_actors.load_state_dict(state["target_actors"])
        self.target_critics.load_state_dict(state["target_critics"])
        self._actor_optimizer.load_state_dict(state["actor_optimizer"])
        self._critic_optimizer.load_state_dict(state["critic_optimizer"])
        self._collector.load_state_dict(state["collector"])
        self._draws.set_state(state["draws"].cpu())
        self._relaxation.set_state(state["relaxation"].cpu())
        self._steps, self._updates = int(state["steps"]), int(state["updates"])


def _joint_row(view: View, codes: Mapping[str, Tensor]) -> Tensor:
    """[B, width]: what the critics see, and the actions of all present agents of all groups; zeros for the others."""
    actions = [torch.where(view.present[name].unsqueeze(-1), codes[name], 0.0).flatten(1) for name in view.rows]
    return torch.cat([view.joint, *actions], dim=-1)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Over the entries where `weight` is True; 0 if there are none."""
    return torch.where(weight, values, 0.0).sum() / weight.sum().clamp(min=1)


def _rows(weight: Mapping[str, Tensor]) -> Tensor:
    """How many entries of all groups count."""
    return torch.stack([entries.sum() for entries in weight.values()]).sum()


def _means(figures: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Of each figure over the updates of an iteration that have it.

    Raises:
        UserError: training diverged.
    """
    found = {name: torch.stack([row[name] for row in figures if name in row]) for row in figures for name in row}
    means = {name: float(values.mean()) for name, values in found.items()}
    require_finite(means)
    return means
