"""Behind `marl env record`: runs a plain policy or a trained one, and keeps what happened as one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from marl_pipeline.algos.common.algorithm import Policy
from marl_pipeline.config import Params
from marl_pipeline.data.windows import Span, split
from marl_pipeline.diagnostics.episode_file import save_episodes
from marl_pipeline.diagnostics.episodes import Episodes
from marl_pipeline.diagnostics.recorder import record_episodes
from marl_pipeline.diagnostics.simple_policies import PolicyName, policy_of
from marl_pipeline.diagnostics.simulator import Simulator, simulator
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.errors import UserError
from marl_pipeline.scenarios.trading_market import load_trading_market
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.paths import DATASET, seed_folder
from marl_pipeline.store.policies import load_weights
from marl_pipeline.training.hierarchy import Tiers, hierarchy_policy

SpanName = Literal["train", "validation", "test", "all"]


@dataclass(frozen=True)
class Recording:
    """What to record: `policy` is the name of a plain one or a folder of weights, `steps` None the whole span."""

    policy: str
    mode: Mode
    span: SpanName
    episodes: int
    steps: int | None
    seed: int


def record(root: Path, params: Params, out: Path, wanted: Recording) -> Episodes:
    """Runs the episodes side by side, each to its own end, and writes `out`.

    Raises:
        UserError: the policy is neither a plain one nor a folder of weights that fit this data set, or the span is too
            short.
    """
    world = simulator(root, params, params.market)
    span = (
        world.span if wanted.span == "all" else cast(Span, getattr(split(len(world.span), params.spans), wanted.span))
    )
    build = _plain if wanted.policy in get_args(PolicyName) else _trained
    environment, policy = build(root, params, world, wanted, span)
    episodes = record_episodes(
        environment,
        policy,
        name=wanted.policy,
        seed=wanted.seed,
        source=world.source,
        timestamps=world.timestamps,
    )
    save_episodes(out, episodes)
    return episodes


def _plain(root: Path, params: Params, world: Simulator, wanted: Recording, span: Span) -> tuple[TradingEnv, Policy]:
    environment = TradingEnv(
        world.market,
        params.market,
        params.train_master.directives,
        mode=wanted.mode,
        num_envs=wanted.episodes,
        span=span,
        episode=_steps(wanted, span),
        gamma=params.train_symbol_agents.gamma,
        seed=wanted.seed,
    )
    return environment, policy_of(cast(PolicyName, wanted.policy), wanted.seed, environment.device)


def _trained(root: Path, params: Params, world: Simulator, wanted: Recording, span: Span) -> tuple[TradingEnv, Policy]:
    """Returns the policy as it trades, and its environment at the bars of `span` at which the base encoder is valid."""
    folder = _weights_folder(root, wanted)
    if world.source != str(DATASET):
        raise UserError(
            f"--policy {wanted.policy}: weights need the data set they were trained on; run `marl run` first"
        )
    market = load_trading_market(params, root, load_dataset(root / DATASET))
    valid = Span(market.view.start, market.view.start + len(market.view.symbol_rows))
    span = Span(max(span.start, valid.start), min(span.stop, valid.stop))
    environment = market.environment(
        wanted.mode, span, num_envs=wanted.episodes, episode=_steps(wanted, span), seed=wanted.seed
    )
    weights = load_weights(folder, "symbols")
    if wanted.mode == "portfolio":
        if not (folder / "master.safetensors").exists():
            raise UserError(f"{folder}: holds no master, which a portfolio needs; record with --mode accounts")
        weights |= load_weights(folder, "master")
    tiers = Tiers(params.train_symbol_agents, params.train_master)
    try:
        policy = hierarchy_policy(market, tiers, weights, wanted.mode, span)
    except UserError as error:
        raise UserError(f"{folder}: {error}; train again on this data set and these parameters") from None
    return environment, policy


def _steps(wanted: Recording, span: Span) -> int | None:
    return None if wanted.steps is None else min(wanted.steps, len(span) - 1)


def _weights_folder(root: Path, wanted: Recording) -> Path:
    """The folder itself, or that of the seed inside it."""
    given = Path(wanted.policy)
    for folder in (given, seed_folder(given, wanted.seed)):
        for place in (folder, root / folder):
            if (place / "symbols.safetensors").exists():
                return place
    names = ", ".join(get_args(PolicyName))
    raise UserError(
        f"--policy {wanted.policy}: neither one of {names} nor a folder with symbols.safetensors (or with "
        f"seed_{wanted.seed}/symbols.safetensors)"
    )
