"""The trading market of params.yaml as an environment of `marl train`: `market/portfolio` (symbols and a master on one
book), `market/accounts` (every symbol for itself) and `market/single` (one agent over the whole portfolio).

Runs learn on the train span and are tested on the validation span; the held-out end is never traded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from marl_pipeline.agents.market_inputs import JoinedMarketInputs, MarketInputs
from marl_pipeline.agents.view import MarketView
from marl_pipeline.algos.common.algorithm import Memory
from marl_pipeline.algos.common.inputs import Inputs
from marl_pipeline.config import Count, Params, Section, explain, load_params
from marl_pipeline.data.assemble import assemble
from marl_pipeline.data.companions import Companions
from marl_pipeline.data.dataset import Dataset
from marl_pipeline.data.sources import synthetic_from
from marl_pipeline.data.windows import Span, split
from marl_pipeline.envs.protocol import Environment, GroupSpec, Timestep, closing
from marl_pipeline.envs.trading.core.actions import Action
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.envs.wrappers import JoinedAgents
from marl_pipeline.errors import UserError
from marl_pipeline.scenarios.market.metrics import episode_metrics
from marl_pipeline.scenarios.market.pictures import account
from marl_pipeline.scenarios.scenario import Scenario, random_policy
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.models import load_embeddings, load_signals
from marl_pipeline.store.paths import DATASET, ENCODER, SIGNALS


class MarketOptions(Section):
    """What `--env-set` may say.

    Attributes:
        episode: steps of an episode, started at random bars; at most what half of the span has room for.
        reward: what the agents are paid (docs/rewards.md).
        signals, embeddings: whether the rows hold what the supervised models and the encoder say.
    """

    episode: Count
    reward: Literal["net", "guide_v3_2", "net_shaped"]
    signals: bool
    embeddings: bool


def scenario(name: str, root: Path, given: Mapping[str, Any], device: torch.device | str) -> Scenario:
    """On the current data set, or the market of `data.synthetic` until one is built.

    Raises:
        UserError: no such market or option, or a data set that is not whole.
    """
    params = load_params(root / "params.yaml")
    if (root / DATASET / "meta.json").exists():
        return scenario_of(load_dataset(root / DATASET), str(DATASET), params, name, given, device, root)
    return scenario_of(synthetic_dataset(params), "synthetic", params, name, given, device, root)


def scenario_of(
    dataset: Dataset,
    source: str,
    params: Params,
    name: str,
    given: Mapping[str, Any],
    device: torch.device | str,
    root: Path = Path(),
) -> Scenario:
    """`scenario` on a data set; `root` is where the signals and the embeddings of that data set lie."""
    mode = name.removeprefix("market/")
    options = _options(name, params, given)
    rules = params.market.model_copy(update={"reward": options.reward})
    market = Market.from_dataset(dataset, rules, device)
    view = MarketView.build(
        dataset,
        load_signals(root / SIGNALS) if options.signals else None,
        load_embeddings(root / ENCODER, 0) if options.embeddings else None,
        torch.device(device),
    )
    spans = split(dataset.bars, params.spans)

    def make(span: Span, num_envs: int, seed: int) -> Environment:
        environment = TradingEnv(
            market,
            rules,
            params.train_master.directives if mode == "portfolio" else None,
            mode="accounts" if mode == "accounts" else "portfolio",
            num_envs=num_envs,
            span=span,
            episode=min(options.episode, len(span) // 2),
            gamma=params.train_symbol_agents.gamma,
            benchmark=dataset.benchmark,
            seed=seed,
        )
        return JoinedAgents(environment) if mode == "single" else environment

    limits = rules.limits
    limit = limits.account_drawdown if mode == "accounts" else limits.portfolio_drawdown
    train = Span(max(spans.train.start, view.start), spans.train.stop)

    def read() -> Inputs:
        with closing(make(train, 1, 0)) as environment:
            return (JoinedMarketInputs if mode == "single" else MarketInputs)(view, environment.groups)

    return Scenario(
        training=lambda num_envs, seed: make(train, num_envs, seed),
        test=lambda num_envs, seed: make(spans.validation, num_envs, seed),
        read=read,
        metrics=episode_metrics(params.market.initial_cash),
        pictures={"account": account(dataset, params.market.initial_cash, limit)},
        baselines={"random": random_policy, "hold": lambda groups, seed: Holding(groups)},
        identify=lambda: {
            "source": source,
            "data": _digest(dataset),
            "rows": hashlib.sha256(view.symbol_rows.cpu().numpy().tobytes()).hexdigest(),
            "market": json.dumps(rules.model_dump(mode="json"), sort_keys=True),
            "directives": json.dumps(params.train_master.directives.model_dump(mode="json"), sort_keys=True),
            "spans": json.dumps(params.spans.model_dump(mode="json"), sort_keys=True),
        },
    )


class Holding:
    """A policy that never trades: every symbol holds, whatever the directives."""

    module = nn.Module()

    def __init__(self, groups: Mapping[str, GroupSpec]) -> None:
        self._groups = groups

    def start(self, num_envs: int) -> Memory:
        return {}

    def act(
        self, timestep: Timestep, memory: Memory, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Memory]:
        shape = timestep.done.shape
        actions = {
            name: torch.full((*shape, spec.agents, *spec.actions.shape), int(Action.HOLD), device=timestep.done.device)
            for name, spec in self._groups.items()
        }
        return actions, {}


def _options(name: str, params: Params, given: Mapping[str, Any]) -> MarketOptions:
    values = {
        "episode": params.train_symbol_agents.episode,
        "reward": params.market.reward,
        "signals": False,
        "embeddings": False,
    }
    try:
        return MarketOptions.model_validate({**values, **given})
    except ValidationError as error:
        raise UserError(f"options of {name}: {explain(error, MarketOptions)}") from None


def synthetic_dataset(params: Params) -> Dataset:
    """The market of `data.synthetic`, without companions."""
    data = params.data
    return assemble(
        synthetic_from(data).bars.assign(quarantined=False),
        Companions(),
        params.build_features,
        frequency=data.frequency,
        calendar=data.calendar,
        adjustment=data.adjustment,
    )


def _digest(dataset: Dataset) -> str:
    """Of what the environment trades on and the networks read."""
    panel = dataset.panel
    digest = hashlib.sha256("\n".join(panel.symbols).encode())
    for table in (
        panel.timestamps,
        panel.open,
        panel.close,
        panel.volume,
        panel.tradable,
        dataset.regime,
        dataset.macro,
    ):
        digest.update(table.tobytes())
    return digest.hexdigest()
