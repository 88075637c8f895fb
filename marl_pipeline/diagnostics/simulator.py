"""The market behind `marl env`, the current data set or else the synthetic one; what is played on it, and the tables
that are printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.table import Table

from marl_pipeline.config import MarketParams, Params
from marl_pipeline.data.dataset import TimeArray
from marl_pipeline.data.panel import build_panel
from marl_pipeline.data.sources import synthetic_from
from marl_pipeline.data.windows import Span
from marl_pipeline.diagnostics.reward_gap import RewardGap, reward_gaps
from marl_pipeline.diagnostics.reward_study import RewardStudy, picture, study_policies
from marl_pipeline.diagnostics.smoke import SmokeResult, smoke
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.rewards.shaped import Preset
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.paths import DATASET


@dataclass(frozen=True)
class Simulator:
    """A market, all of its bars, when each began, and what it was made of."""

    market: Market
    span: Span
    timestamps: TimeArray
    source: str


def simulator(root: Path, params: Params, market: MarketParams) -> Simulator:
    """The data set of the last `build_features`, or the market of `data.synthetic` if there is none."""
    if (root / DATASET / "meta.json").exists():
        panel, source = load_dataset(root / DATASET).panel, str(DATASET)
    else:
        data = params.data
        bars = synthetic_from(data).bars.assign(quarantined=False)
        panel = build_panel(bars, frequency=data.frequency, calendar=data.calendar, adjustment=data.adjustment)
        source = "synthetic"
    built = Market.from_panel(panel, market)
    return Simulator(built, Span(0, built.bars), panel.timestamps, source)


def smoke_test(root: Path, params: Params, *, steps: int, seed: int) -> tuple[list[SmokeResult], str]:
    """Random steps in every mode, and the source of the market they were played on."""
    world, market, directives = simulator(root, params, params.market), params.market, params.train_master.directives
    results = [
        smoke(world.market, market, directives, mode, span=world.span, steps=steps, seed=seed)
        for mode in get_args(Mode)
    ]
    return results, world.source


def study(
    root: Path, params: Params, *, mode: Mode, episodes: int, seed: int, out: Path
) -> tuple[tuple[RewardStudy, ...], str]:
    """What `params.market.reward` pays plain policies, drawn into `out`, and the source of the market."""
    world = simulator(root, params, params.market)
    studies = study_policies(
        world.market,
        params.market,
        params.train_master.directives,
        mode=mode,
        span=world.span,
        gamma=params.train_symbol_agents.gamma,
        episodes=episodes,
        seed=seed,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(picture(studies))
    return studies, world.source


def gaps(params: Params, rewards: Sequence[Preset], horizon: int) -> tuple[RewardGap, ...]:
    """What each of `rewards` pays for beside what the account earns, on the known markets."""
    chosen = (params.market.model_copy(update={"reward": reward}) for reward in rewards)
    return tuple(gap for market in chosen for gap in reward_gaps(market, horizon))


def smoke_table(results: list[SmokeResult], source: str) -> Table:
    table = Table(title=f"random steps on {source}", title_justify="left")
    table.add_column("what must hold")
    for result in results:
        table.add_column(f"{result.mode}: broken", justify="right")
    for name in results[0].violations:
        table.add_row(name, *(str(result.violations[name]) for result in results))
    table.add_section()
    table.add_row("steps", *(f"{result.steps:,}" for result in results))
    table.add_row("symbol-steps", *(f"{result.symbol_steps:,}" for result in results))
    table.add_row("largest gap of the identity / equity", *(f"{result.worst_identity:.1e}" for result in results))
    for name in results[0].magnitudes:
        table.add_row(f"|{name}|, bps of the capital a step", *(f"{r.magnitudes[name]:.4f}" for r in results))
    for group in sorted({group for result in results for group in result.components}):
        for name in next(r.components[group] for r in results if group in r.components):
            found = (result.components.get(group, {}).get(name) for result in results)
            table.add_row(f"|{group} {name}| a step", *("" if size is None else f"{size:.5f}" for size in found))
    return table


def reward_table(studies: tuple[RewardStudy, ...]) -> Table:
    table = Table(title=f"{studies[0].reward}: components, in the guide's own numbers", title_justify="left")
    for column in ("policy", "component", "mean a step", "share", "signal / noise", "flags"):
        table.add_column(column, justify="left" if column in ("policy", "component", "flags") else "right")
    for study in studies:
        for part in study.components:
            figures = (f"{part.mean:+.6f}", f"{part.share:.1%}", f"{part.signal_to_noise:.3f}")
            table.add_row(study.policy, part.component, *figures, ", ".join(part.flags))
        table.add_row(
            study.policy,
            "paid, net, gap an episode",
            f"{study.paid:+.3f}",
            f"{study.net:+.3f}",
            f"{study.gap:+.3f}",
            "" if study.correlation is None else f"correlation {study.correlation:.2f}",
        )
        table.add_section()
    return table


def gap_table(found: Sequence[RewardGap]) -> Table:
    title = "the policy that is paid most beside the one that earns most: basis points of log growth, turnover"
    table = Table(title=title, title_justify="left")
    for column in ("reward", "market", "paid most earns", "best earns", "gap", "its turnover", "best's"):
        table.add_column(column, justify="left" if column in ("reward", "market") else "right")
    last = None
    for one in found:
        if last not in (None, one.reward):
            table.add_section()
        last = one.reward
        growth = (f"{1e4 * value:.1f}" for value in (one.by_pay.net, one.by_net.net, one.gap))
        turnover = (f"{policy.turnover:.2f}x" for policy in (one.by_pay, one.by_net))
        table.add_row(one.reward, one.market, *growth, *turnover)
    return table
