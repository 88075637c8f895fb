"""The hierarchy as an algorithm: symbol agents learn by PPO, a master over them by MAPPO, alone or together.

Symbol agents share a network with a head for every symbol and a critic each of its own (`GroupActorCritic` with
`agent_heads`). The master reads what they intend at the same bar (`PooledIntents`), the portfolio, the regime and the
active directive; its critic sees the global state besides. On accounts, where there is no master, the symbol agents are
all there is.
"""

from __future__ import annotations

from typing import Literal

from marl_pipeline.agents.intents import PooledIntents
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.algos.mappo import MAPPOSettings
from marl_pipeline.algos.on_policy import OnPolicy
from marl_pipeline.algos.ppo import PPOSettings
from marl_pipeline.config import Section
from marl_pipeline.envs.protocol import Discrete, Environment
from marl_pipeline.errors import UserError
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction

Tier = Literal["symbols", "master"]


class HierarchySettings(Section):
    """Attributes:
    symbols, master: of the two tiers; None for a master that is not there. The rollouts of tiers that learn together
        are as long as the longer horizon.
    learn: the tiers that learn; the other one acts by its mode, as it will when it trades.
    """

    symbols: PPOSettings
    master: MAPPOSettings | None
    learn: tuple[Tier, ...]


class Hierarchy(OnPolicy):
    """Implements `Algorithm` for the groups `symbols` and, where there is one, `master`.

    Raises:
        UserError: the environment has other groups, or actions that are no choices; see `OnPolicy` too.
    """

    def __init__(
        self,
        environment: Environment,
        inputs: Inputs,
        settings: HierarchySettings,
        *,
        seed: int,
        timesteps: int,
        reduction: Reduction = NO_REDUCTION,
    ) -> None:
        _require_tiers(environment)
        super().__init__(
            environment,
            inputs,
            {"symbols": settings.symbols} | ({} if settings.master is None else {"master": settings.master}),
            seed=seed,
            timesteps=timesteps,
            reduction=reduction,
            learn=settings.learn,
            message=PooledIntents(),
        )


def _require_tiers(environment: Environment) -> None:
    """Raises:
    UserError: the environment is no trading market of symbols, with or without a master.
    """
    groups = environment.groups
    discrete = all(isinstance(spec.actions, Discrete) for spec in groups.values())
    if set(groups) not in ({"symbols"}, {"symbols", "master"}) or not discrete:
        found = ", ".join(f"'{name}' ({type(spec.actions).__name__})" for name, spec in groups.items())
        raise UserError(
            "hierarchy: trains groups 'symbols' and 'master' with discrete actions, and this environment has "
            f"{found}; choose market/portfolio or market/accounts"
        )
