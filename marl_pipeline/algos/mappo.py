"""Multi-agent PPO (Yu et al. 2022): PPO whose critic sees the global state and learns normalised values.

The algorithm is that of `on_policy.OnPolicy` and the loss that of `ppo.ppo_losses`; what makes it MAPPO is what its
critic sees (`critic` here, built in `common.actor_critic`) and the normalisation of values (`nn.value_norm`).
"""

from __future__ import annotations

from typing import Literal

from marl_pipeline.algos.ppo import PPOSettings


class MAPPOSettings(PPOSettings):
    """PPO's settings, and what the central critic sees.

    Attributes:
        critic: `state`, the global state alone: one value for all agents of a group, computed once per state (one for
            each agent where they share no parameters). `agent_state`, besides it the agent's own observation and which
            agent it is (the agent-specific state): right where agents of a group are paid differently.
    """

    critic: Literal["state", "agent_state"]
