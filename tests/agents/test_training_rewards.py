"""Training under every reward: it runs, and what is selected on the validation span is net all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from marl_pipeline.agents.hierarchy import Alone, Hierarchy
from marl_pipeline.checkpoint import NoCheckpoint
from marl_pipeline.config import Params, parse_params
from marl_pipeline.data.dataset import Embeddings, Signals
from marl_pipeline.data.windows import Span
from marl_pipeline.pipeline import overlay
from marl_pipeline.progress import silent
from marl_pipeline.training.hierarchy import World, net_log_growth, train_master, train_symbol_agents
from tests.data.market_panels import dataset_of, random_panel

ROOT = Path(__file__).parents[2]
TRAIN, VALIDATION = Span(20, 100), Span(100, 140)
REWARDS = [("net", "net"), ("guide_v3_2", "risk_adjusted"), ("net_shaped", "risk_adjusted")]


def world(reward: str, master: str) -> World:
    merged = overlay.merge(ROOT, "smoke", [f"market.reward={reward}", f"market.master_reward={master}"], ROOT)
    params: Params = parse_params(YAML(typ="safe").load(merged.text), "smoke")
    dataset = dataset_of(random_panel(3, bars=150))
    bars, size = dataset.panel.close.shape
    rng = np.random.default_rng(0)
    signals = Signals(("MLP72",), np.full((bars, size, 1, 3), 1 / 3, np.float32), np.ones((bars, size), bool))
    embeddings = Embeddings(0, 100, 0, rng.normal(size=(bars, size, 4)).astype(np.float32))
    return World.build(
        dataset, signals, embeddings, params.market, params.train_symbol_agents, params.train_master,
        torch.device("cpu"),
    )  # fmt: skip


def trained(built: World) -> tuple[dict[str, Any], dict[str, Any]]:
    settings: dict[str, Any] = {
        "train_span": TRAIN, "validation_span": VALIDATION, "seed": 0, "on_step": silent, "checkpoint": NoCheckpoint(),
    }  # fmt: skip
    weights, symbols = train_symbol_agents(built, **settings)
    _, master = train_master(built, weights, **settings)
    return symbols, master


@pytest.mark.parametrize(("reward", "master"), REWARDS)
def test_every_reward_trains(reward: str, master: str) -> None:
    symbols, of_master = trained(world(reward, master))
    scores = [stage["best_validation_net"] for stage in symbols["stages"]] + [of_master["best_validation_net"]]
    assert np.isfinite(scores).all()


def test_the_same_policy_scores_the_same_net_under_every_reward() -> None:
    scores = set()
    for reward, master in REWARDS:
        built = world(reward, master)
        agents, boss = built.symbol_agents(1), built.master_agent(1)
        accounts = built.environment("accounts", VALIDATION, num_envs=1, episode=None, seed=0)
        portfolio = built.environment("portfolio", VALIDATION, num_envs=1, episode=None, seed=0)
        scale = built.params.reward_scale
        alone = net_log_growth(accounts, Alone(agents), scale)
        together = net_log_growth(portfolio, Hierarchy(agents, boss), scale)
        assert together == pytest.approx(np.log(portfolio.book.equity.item() / built.params.initial_cash), rel=1e-5)
        scores.add((alone, together))
    assert len(scores) == 1
