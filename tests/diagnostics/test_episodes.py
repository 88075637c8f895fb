"""`marl env record`: plain policies and trained weights, in both modes, and mistakes in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from marl_pipeline.agents.hierarchy import Hierarchy
from marl_pipeline.data.windows import Span, split
from marl_pipeline.diagnostics.episode_file import load_episodes
from marl_pipeline.diagnostics.monitor import monitor
from marl_pipeline.diagnostics.record import Recording, record
from marl_pipeline.diagnostics.recorded import write_study
from marl_pipeline.errors import UserError
from marl_pipeline.scenarios.trading_market import load_trading_market
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.paths import DATASET
from marl_pipeline.store.policies import by_tier, save_policy
from marl_pipeline.training.hierarchy import Tiers
from tests.data.market_panels import dataset_of, random_panel
from tests.stages.prepared import BARS, prepared, smoke_params

PARAMS = smoke_params("market.reward=guide_v3_2")


def untrained(root: Path) -> dict[str, dict[str, Tensor]]:
    """Fresh weights of both tiers."""
    market = load_trading_market(PARAMS, root, load_dataset(root / DATASET))
    environment = market.environment("portfolio", Span(60, 100), num_envs=1, episode=None, seed=0)
    settings = Tiers(PARAMS.train_symbol_agents, PARAMS.train_master).settings("symbols", "master")
    algorithm = Hierarchy(environment, market.inputs(environment.groups), settings, seed=1, timesteps=1)
    return by_tier(algorithm.weights())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the untrained weights of a hierarchy, and of symbol agents alone."""
    root = prepared(tmp_path_factory.mktemp("checkout"))
    weights = untrained(root)
    save_policy(root / "models/rl/policies/hierarchy/seed_2", weights, {})
    save_policy(root / "models/rl/symbol_agents/hierarchy/seed_2", {"symbols": weights["symbols"]}, {})
    return root


def played(policy: str, **changes: Any) -> Recording:
    settings = {"mode": "portfolio", "span": "validation", "episodes": 3, "steps": 5, "seed": 2, **changes}
    return Recording(policy=policy, **settings)


@pytest.mark.parametrize("policy", ["random", "models/rl/policies/hierarchy", "models/rl/policies/hierarchy/seed_2"])
def test_episodes_are_recorded_where_they_were_asked_for(root: Path, tmp_path: Path, policy: str) -> None:
    found = record(root, PARAMS, tmp_path / "a.parquet", played(policy))
    assert load_episodes(tmp_path / "a.parquet").about == found.about
    validation = split(BARS, PARAMS.spans).validation
    assert found.about.span == (validation.start, validation.stop)
    assert found.table["bar"].between(validation.start + 1, validation.stop - 1).all()
    assert (found.count, found.table["step"].max()) == (3, 5)
    stamps = load_dataset(root / DATASET).panel.timestamps
    assert (found.table["timestamp"].to_numpy() == stamps[found.table["bar"]]).all()
    assert found.about.policy == policy
    assert len(monitor(found).reward.components) == 7
    again = record(root, PARAMS, tmp_path / "b.parquet", played(policy))
    assert again.count == 3
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_trained_agents_act_by_their_mode_on_accounts_of_their_own(root: Path, tmp_path: Path) -> None:
    asked = played("models/rl/symbol_agents/hierarchy", mode="accounts", steps=None, span="train", episodes=2)
    found = record(root, PARAMS, tmp_path / "a.parquet", asked)
    table = found.table.pivot(index=["step", "symbol"], columns="episode", values="equity")
    assert np.array_equal(table[0], table[1])  # the same span, the same mode of the same policy
    assert found.table["step"].max() == len(split(BARS, PARAMS.spans).train) - 1


def test_a_study_of_a_file_is_drawn(root: Path, tmp_path: Path) -> None:
    record(root, PARAMS, tmp_path / "a.parquet", played("random"))
    study = write_study(tmp_path / "a.parquet", tmp_path / "deep" / "a.svg")
    assert study.policy == "random"
    assert (tmp_path / "deep" / "a.svg").read_bytes().startswith(b"<?xml")
    record(root, smoke_params(), tmp_path / "net.parquet", played("random"))
    with pytest.raises(UserError, match="paid by `net`, which has no components"):
        write_study(tmp_path / "net.parquet", tmp_path / "net.svg")


def test_mistakes_are_reported_in_one_line(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    for asked, words in (
        (played("models/rl/nope"), "neither one of random, hold, buy_and_hold nor a folder"),
        (played("models/rl/policies/hierarchy", seed=0), r"or with seed_0/symbols\.safetensors"),
        (
            played("models/rl/symbol_agents/hierarchy"),
            "holds no master, which a portfolio needs; record with",
        ),
    ):
        with pytest.raises(UserError, match=words):
            record(root, PARAMS, out, asked)
    with pytest.raises(UserError, match="the weights of group symbols do not fit") as raised:
        record(
            root,
            smoke_params("train_symbol_agents.ppo.network.hidden=[8]"),
            out,
            played("models/rl/policies/hierarchy"),
        )
    assert "\n" not in str(raised.value)
    bare = tmp_path / "bare"
    save_policy(bare / "weights", {"symbols": {}}, {})
    with pytest.raises(UserError, match="weights need the data set they were trained on; run `marl run` first"):
        record(bare, PARAMS, out, played(str(bare / "weights")))
    assert not out.exists()


def test_bars_of_which_the_base_encoder_says_nothing_are_left_out(tmp_path: Path) -> None:
    """The walk-forward windows have encoders of their own; the base one ends where the first of them takes over."""
    root = prepared(tmp_path, dataset_of(random_panel(3, bars=BARS)))
    table = np.load(root / "models/encoder/embeddings_0.npy")
    np.save(root / "models/encoder/embeddings_0.npy", table[:120])
    save_policy(root / "weights", {"symbols": untrained(root)["symbols"]}, {})
    asked = played("weights", mode="accounts", steps=None, span="test", episodes=1)
    found = record(root, PARAMS, tmp_path / "a.parquet", asked)
    assert found.about.span == (split(BARS, PARAMS.spans).test.start, 120)
