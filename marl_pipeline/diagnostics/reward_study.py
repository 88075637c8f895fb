"""What a reward pays a simple policy beside what the account earns, and whether its components are in balance."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from marl_pipeline.algos.common.episodes import episode_steps
from marl_pipeline.config import DirectivesParams, MarketParams
from marl_pipeline.data.dataset import FloatArray
from marl_pipeline.data.windows import Span
from marl_pipeline.diagnostics.episodes import Episodes
from marl_pipeline.diagnostics.simple_policies import PolicyName, policy_of
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.envs.trading.rewards.component_log import DOMINANT, Balance, Recorded, check_balance
from marl_pipeline.errors import UserError


@dataclass(frozen=True)
class RewardStudy:
    """Of the symbol agents over whole episodes.

    Attributes:
        policy: name of a plain one, or the folder of its weights.
        episodes, steps: played, and steps of the longest.
        paid: reward of an agent and episode, mean; net: the same under `net`; gap: paid - net. All in units of
            `reward_scale` x log equity.
        correlation: of what an agent was paid for a step with `net`; None where one of them does not vary.
        components: in the guide's own numbers.
    """

    reward: str
    policy: str
    mode: Mode
    episodes: int
    steps: int
    paid: float
    net: float
    correlation: float | None
    components: tuple[Balance, ...]

    @property
    def gap(self) -> float:
        return self.paid - self.net

    def as_json(self) -> dict[str, Any]:
        named = ("reward", "policy", "mode", "episodes", "steps", "paid", "net", "gap", "correlation")
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
    """Runs `episodes` episodes of at most `steps` steps side by side. `params.reward` must not be `net`.

    Raises:
        UserError: the span is too short to trade in.
        ValueError: `net` has no components to study.
    """
    steps = min(steps, len(span) - 1)
    environment = TradingEnv(
        market, params, directives, mode=mode, num_envs=episodes, span=span, episode=steps, seed=seed, gamma=gamma
    )
    if environment.rewards.shaper is None:
        raise ValueError("net has no components: study guide_v3_2 or net_shaped")
    paid, net, acting = [], [], []
    for step in episode_steps(
        environment, policy_of(policy, seed, environment.device), environment.reset(), steps=steps
    ):
        acting.append(step.before.groups["symbols"].acts)
        paid.append(step.after.groups["symbols"].reward.double())
        net.append(environment.rewards.own.double())
    every = torch.stack(acting)
    was_paid, earned = torch.stack(paid), torch.stack(net)
    agents = episodes * market.size
    return RewardStudy(
        reward=params.reward,
        policy=policy,
        mode=mode,
        episodes=episodes,
        steps=steps,
        paid=float(was_paid.sum()) / agents,
        net=float(earned.sum()) / agents,
        correlation=correlation(was_paid[every].cpu().numpy(), earned[every].cpu().numpy()),
        components=check_balance(environment.rewards.logs["symbols"].recorded()),
    )


def study_episodes(episodes: Episodes) -> RewardStudy:
    """The same of recorded episodes; those paid by `net` have no components.

    Raises:
        UserError: they are too short to assess.
    """
    about, table = episodes.about, episodes.table
    playing = table[table["playing"]]
    steps = int(table["step"].max())
    if playing["step"].nunique() < 2:
        raise UserError("the balance of a reward needs two recorded steps or more; record longer episodes")
    agents = episodes.count * episodes.symbols
    paid, net = (playing[name].to_numpy(dtype=np.float64) for name in ("reward", "own_net"))
    parts = about.components.get("symbols", ())
    return RewardStudy(
        reward=about.reward,
        policy=about.policy,
        mode=about.mode,
        episodes=episodes.count,
        steps=steps,
        paid=float(paid.sum()) / agents,
        net=float(net.sum()) / agents,
        correlation=correlation(paid, net),
        components=check_balance(recorded_of(playing, "symbols", parts)) if parts else (),
    )


def recorded_of(playing: pd.DataFrame, group: str, parts: tuple[str, ...]) -> Recorded:
    """Moments of the components of `group` over the rows of each step."""
    values = playing[[f"{group}_{part}" for part in parts]].astype("float64")
    moments = [frame.groupby(playing["step"], sort=True).mean() for frame in (values, values.abs(), values**2)]
    return Recorded(parts, *(torch.from_numpy(moment.to_numpy().copy()) for moment in moments))


def correlation(paid: FloatArray, net: FloatArray) -> float | None:
    """Pearson's; None where one of them does not vary."""
    paid, net = paid - paid.mean(), net - net.mean()
    scale = float(np.sqrt((paid**2).sum() * (net**2).sum()))
    return float((paid * net).sum()) / scale if scale > 0.0 else None


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
