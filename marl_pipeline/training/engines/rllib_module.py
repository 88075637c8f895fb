"""Actor and central critic as RLlib's new API stack wants them, and the loss of MAPPO."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor
from torch.nn import functional

from marl_pipeline.algos.common.actor_critic import Actor, Critic
from marl_pipeline.algos.ppo import PPOSettings
from marl_pipeline.envs.protocol import Discrete, GroupSpec
from marl_pipeline.nn.running_norm import Moments
from marl_pipeline.nn.value_norm import ValueNorm

FORBIDDEN = torch.finfo(torch.float32).min
"""The logit of an action that is not allowed; RLlib's entropy cannot take an infinite one."""


class ActorCriticModule(TorchRLModule, ValueFunctionAPI):  # type: ignore[misc]
    """The project's own actor and critic, shared by the agents of a group.

    Reads `{"observations": [B, F], "action_mask": [B, actions]}` and, if there is one, `"state"` [B, S], which only the
    critic sees, beside the observation.

    `model_config`: `settings` (`ppo.PPOSettings`) and the `seed` of the initial weights.
    """

    framework = "torch"

    def setup(self) -> None:
        """Called by RLlib once the spaces are known."""
        spaces, settings = self.observation_space.spaces, self.model_config["settings"]
        generator = torch.Generator().manual_seed(self.model_config["seed"])
        spec = GroupSpec(1, {}, Discrete(int(self.action_space.n)))
        width = spaces["observations"].shape[0]
        seen = width + (spaces["state"].shape[0] if "state" in spaces else 0)
        self.actor = Actor(spec, width, settings.network, generator)
        self.critic = Critic("local", spec, seen, 0, settings.network, generator)
        self.norm = ValueNorm() if settings.normalise_values else None

    def _forward(self, batch: dict[str, Any], **named: Any) -> dict[str, Any]:
        observed = batch[Columns.OBS]
        logits, _ = self.actor(observed["observations"].unsqueeze(-2), None)
        return {Columns.ACTION_DIST_INPUTS: logits.squeeze(-2).masked_fill(observed["action_mask"] == 0.0, FORBIDDEN)}

    def observe(self, batch: dict[str, Any], live: Tensor) -> None:
        """The `live` [B] rows of a batch, for the statistics of the inputs."""
        seen = batch[Columns.OBS]
        self.actor.observe(Moments.of(seen["observations"][live]))
        self.critic.observe(Moments.of(_seen_by_critic(seen)[live]), None)

    def absorb(self) -> None:
        """Counts in what was observed, once the update on it is made."""
        for norm in (*self.actor.norms(), *self.critic.norms()):
            norm.absorb()

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """[B] in units of reward."""
        value = self.normalised_values(batch)
        return value if self.norm is None else self.norm.denormalise(value)

    def normalised_values(self, batch: dict[str, Any]) -> Tensor:
        """[B] in the units that the critic learns in."""
        rows = _seen_by_critic(batch[Columns.OBS]).unsqueeze(-2)
        present = torch.ones(rows.shape[:-1], dtype=torch.bool, device=rows.device)
        value: Tensor = self.critic(rows, None, present, None)[0]
        return value.squeeze(-1)


def _seen_by_critic(observation: dict[str, Tensor]) -> Tensor:
    """[B, F], with the state behind it where there is one [B, F + S]."""
    parts = [observation["observations"]] + ([observation["state"]] if "state" in observation else [])
    return torch.cat(parts, -1)


class MAPPOLearner(PPOTorchLearner):  # type: ignore[misc]
    """The clipped surrogate with a Huber loss on normalised values (Yu et al. 2022, section 3 and appendix A).

    Advantages come from RLlib's GAE on the central value, standardised over the batch. The value's loss is not clipped
    around the old estimate: RLlib's batch does not hold it.
    """

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        """Mean over the rows that are not padding."""
        module: ActorCriticModule = self.module[module_id].unwrapped()
        settings: PPOSettings = module.model_config["settings"]
        advantage, target = batch[Postprocessing.ADVANTAGES], batch[Postprocessing.VALUE_TARGETS]
        live = batch.get(Columns.LOSS_MASK, torch.ones_like(advantage, dtype=torch.bool))
        module.observe(batch, live)
        policy = module.get_train_action_dist_cls().from_logits(fwd_out[Columns.ACTION_DIST_INPUTS])
        ratio = (policy.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]).exp()
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - settings.clip, 1 + settings.clip) * advantage)
        if module.norm is not None:
            module.norm.update(target[live])
            target = module.norm.normalise(target)
        errors = functional.huber_loss(
            module.normalised_values(batch), target, reduction="none", delta=settings.huber_delta
        )
        policy_loss, value_loss, entropy = -surrogate[live].mean(), errors[live].mean(), policy.entropy()[live].mean()
        self.metrics.log_dict(
            {POLICY_LOSS_KEY: policy_loss, VF_LOSS_KEY: value_loss, ENTROPY_KEY: entropy}, key=module_id, window=1
        )
        loss: Tensor = policy_loss + settings.value_coefficient * value_loss - settings.entropy * entropy
        return loss

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Called by RLlib when all epochs over a batch are made."""
        super().after_gradient_based_update(timesteps=timesteps)
        for module_id in self.module.keys():  # noqa: SIM118 (not a mapping)
            self.module[module_id].unwrapped().absorb()
