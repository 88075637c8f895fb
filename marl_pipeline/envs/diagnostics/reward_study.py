"""What a reward pays a simple policy beside what the account earns, and whether its components are in balance."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any, get_args

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from marl_pipeline.config import DirectivesParams, MarketParams
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.diagnostics.play import PolicyName, policy_of
from marl_pipeline.envs.trading.component_log import DOMINANT, Balance, check_balance
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.envs.trading.limits import Mode
from marl_pipeline.envs.trading.market import Market


@dataclass(frozen=True)
class RewardStudy:
    """Of the symbol agents over whole episodes.

    Attributes:
        episodes, steps: played, and steps of each.
        paid: reward of an agent and episode, mean; net: the same under `net`; gap: paid - net. All in units of
            `reward_scale` x log equity.
        components: in the guide's own numbers.
    """

    reward: str
    policy: PolicyName
    mode: Mode
    episodes: int
    steps: int
    paid: float
    net: float
    components: tuple[Balance, ...]

    @property
    def gap(self) -> float:
        return self.paid - self.net

    def as_json(self) -> dict[str, Any]:
        named = ("reward", "policy", "mode", "episodes", "steps", "paid", "net", "gap")
        figures = {name: getattr(self, name) for name in named}
        return figures | {"components": [asdict(part) for part in self.components]}


def study_reward(
    market: Market,
    params: MarketParams,
    directives: DirectivesParams,
    *,
    mode: Mode,
    policy: PolicyName,
    span: Span,
    gamma: float,
    episodes: int = 32,
    steps: int = 128,
    seed: int = 0,
) -> RewardStudy:
    """Plays `episodes` episodes of at most `steps` steps side by side. `params.reward` must not be `net`.

    Raises:
        UserError: the span is too short to trade in.
        ValueError: `net` has no components to study.
    """
    steps = min(steps, len(span) - 1)
    environment = TradingEnv(
        market, params, directives, mode=mode, num_envs=episodes, span=span, episode=steps, seed=seed, gamma=gamma
    )
    twin = TradingEnv(
        market,
        params.model_copy(update={"reward": "net"}),
        directives,
        mode=mode,
        num_envs=episodes,
        span=span,
        episode=steps,
        seed=seed,
    )
    if environment.rewards.shaper is None:
        raise ValueError("net has no components: study guide_v3_2 or net_shaped")
    decide = policy_of(policy, seed, environment.device)
    timestep, plain = environment.reset(), twin.reset()
    paid, net = (torch.zeros((), dtype=torch.float64, device=environment.device) for _ in range(2))
    for _ in range(steps):
        actions = decide(timestep)
        timestep, plain = environment.step(actions), twin.step(actions)
        paid += timestep.groups["symbols"].reward.double().sum(-1).mean()
        net += plain.groups["symbols"].reward.double().sum(-1).mean()
    log = environment.rewards.logs["symbols"]
    return RewardStudy(
        reward=params.reward,
        policy=policy,
        mode=mode,
        episodes=episodes,
        steps=steps,
        paid=float(paid) / market.size,
        net=float(net) / market.size,
        components=check_balance(log.recorded()),
    )


def study_policies(
    market: Market,
    params: MarketParams,
    directives: DirectivesParams,
    *,
    mode: Mode,
    span: Span,
    gamma: float,
    episodes: int,
    seed: int,
) -> tuple[RewardStudy, ...]:
    """`study_reward` of every plain policy, on the same episodes."""
    return tuple(
        study_reward(
            market,
            params,
            directives,
            mode=mode,
            policy=policy,
            span=span,
            gamma=gamma,
            episodes=episodes,
            seed=seed,
        )
        for policy in get_args(PolicyName)
    )


def picture(studies: tuple[RewardStudy, ...]) -> bytes:
    """An SVG, the same bytes for the same values: per policy the shares of the absolute total, and signal to noise."""
    with rc_context({"svg.hashsalt": "marl-pipeline", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(10, 2.4 * len(studies) + 0.6), layout="constrained")
        axes = figure.subplots(len(studies), 2, squeeze=False)
        for (left, right), study in zip(axes, studies, strict=True):
            names = [part.component for part in study.components]
            colours = ["#b3261e" if part.flags else "#1560d4" for part in study.components]
            left.barh(names, [part.share for part in study.components], color=colours)
            left.axvline(DOMINANT, color="#7d8894", linestyle="--", linewidth=0.8)
            left.set(xlim=(0, 1), title=f"{study.reward}, {study.policy}: share of the absolute total")
            right.barh(names, [part.signal_to_noise for part in study.components], color=colours)
            right.set_xscale("symlog", linthresh=0.01)
            right.set(title="|mean| / deviation per step (red: flagged)")
            for axis in (left, right):
                axis.invert_yaxis()
                axis.spines[["top", "right"]].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
