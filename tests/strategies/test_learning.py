"""What each phase reads and leaves: train span to learn on, validation span to select on, the test span never."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from marl_pipeline.checkpoint import FileCheckpointer
from marl_pipeline.config import Params, parse_params, restrict
from marl_pipeline.data.dataset import Dataset
from marl_pipeline.data.windows import Spans, split, walk_forward_windows
from marl_pipeline.pipeline import dag
from marl_pipeline.pipeline.harness import StageContext
from marl_pipeline.pipeline.records import load_record, record_folder
from marl_pipeline.stages import fine_tune, strategies, train_master, train_symbol_agents, walk_forward
from marl_pipeline.store.paths import MASTER, POLICIES, SYMBOL_AGENTS, WALK_FORWARD, policy_folder
from tests.data.market_panels import dataset_of, random_panel
from tests.stages.prepared import BARS, ROOT, prepared, smoke_params

TINY = {"envs": 2, "horizon": 8, "minibatches": 2}
GIVEN: dict[str, dict[str, Any]] = {
    "hierarchy": {"kind": "hierarchy"},
    "symbols": {"kind": "hierarchy", "master": "none"},
    "mappo": {"kind": "algorithm", "algo": "mappo", "timesteps": 64, "settings": TINY},
    "single": {"kind": "algorithm", "algo": "ppo", "timesteps": 64, "settings": TINY},
    "accounts": {"kind": "algorithm", "algo": "ippo", "env": "market/accounts", "timesteps": 64, "settings": TINY},
    "sb3": {"kind": "algorithm", "algo": "ppo", "engine": "sb3", "timesteps": 64, "settings": TINY},
    "inverse_volatility": {"kind": "rule", "rule": "inverse_volatility", "options": {"volatility_window": 20}},
}
PHASES = ((train_symbol_agents, SYMBOL_AGENTS), (train_master, MASTER), (fine_tune, POLICIES))
SEED = 1


@functools.cache
def params() -> Params:
    values = smoke_params("spans.test_fraction=0.3", "spans.embargo=2", "walk_forward.tune_bars=30").model_dump(
        mode="json"
    )
    values["strategies"] = GIVEN
    return parse_params(values, "the test")


def market(changed: slice | None = None) -> Dataset:
    """The test's market; prices and features at bars of `changed` are other ones."""
    dataset = dataset_of(random_panel(3, bars=BARS))
    if changed is None:
        return dataset
    rng = np.random.default_rng(7)
    panel = dataset.panel
    factor = np.ones_like(panel.close)
    factor[changed] = np.exp(0.05 * rng.standard_normal(panel.close[changed].shape))
    features = dataset.features.copy()
    features[changed] = rng.normal(size=features[changed].shape)
    prices = {name: getattr(panel, name) * factor for name in ("open", "high", "low", "close")}
    return dataclasses.replace(dataset, panel=dataclasses.replace(panel, **prices), features=features)


@functools.cache
def declared() -> dict[str, tuple[str, ...]]:
    """Stage -> the parameters that dvc.yaml lets it read."""
    return {stage.group: stage.params for stage in dag.read(ROOT)}


def context(root: Path, stage: ModuleType, **more: Any) -> StageContext:
    group = stage.__name__.rpartition(".")[2]
    return StageContext(restrict(params(), declared()[group]), root=root, **more)


def trained(root: Path, name: str, dataset: Dataset) -> Path:
    """Runs the three phases of one strategy; the folder of its policy."""
    prepared(root, dataset)
    strategies.run(context(root, strategies))
    for stage, _ in PHASES:
        stage.run(context(root, stage, item={"strategy": name, "seed": SEED}))
    return root / policy_folder(POLICIES, name, SEED)


def traded(root: Path, name: str, window: int) -> None:
    item = {"strategy": name, "window": window, "seed": SEED}
    walk_forward.run(context(root, walk_forward, item=item))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def spans() -> Spans:
    return split(BARS, params().spans)


@pytest.mark.parametrize("name", list(GIVEN))
def test_training_reads_train_and_validation_and_never_the_test_span(name: str, tmp_path: Path) -> None:
    """Other bars in the test span change no byte; other bars in the validation span change what selects."""
    plain = trained(tmp_path / "plain", name, market())
    test = spans().test
    after = trained(tmp_path / "after", name, market(slice(test.start, test.stop)))
    assert content(after) == content(plain)
    if GIVEN[name]["kind"] == "rule":
        return
    validation = spans().validation
    selected = trained(tmp_path / "selected", name, market(slice(validation.start, validation.stop)))
    scores = [json.loads((folder / "metadata.json").read_text()) for folder in (plain, selected)]
    assert scores[0] != scores[1], "the validation span is what selects"


@pytest.mark.parametrize("name", list(GIVEN))
def test_a_window_is_decided_by_what_came_before(name: str, tmp_path: Path) -> None:
    """Other bars in the second window change neither the decisions of the first nor those of its own first bar."""
    windows = walk_forward_windows(BARS, params().spans, params().walk_forward)
    roots = (tmp_path / "plain", tmp_path / "changed")
    trained(roots[0], name, market())
    trained(roots[1], name, market(slice(windows[1].test.start + 5, BARS)))
    for root in roots:
        for window in windows:
            traded(root, name, window.index)
    for window in windows:
        one, other = (load_record(record_folder(name, window.index, SEED, root / WALK_FORWARD)) for root in roots)
        upto = windows[1].test.start + 4
        before, after = (record.decisions[record.decisions["bar"] <= upto] for record in (one, other))
        if GIVEN[name]["kind"] == "rule":
            before, after = (record.trades[record.trades["bar"] <= upto] for record in (one, other))
        assert len(before)
        assert before.equals(after)
        assert one.label == f"window {window.index} seed {SEED}"
        has_master = name in ("hierarchy", "mappo")
        assert bool((one.decisions["ordered"] >= 0).any()) == has_master


def test_a_strategy_hands_its_policy_on_where_it_has_no_phase(tmp_path: Path) -> None:
    policy = trained(tmp_path, "single", market())
    first, last = content(tmp_path / policy_folder(SYMBOL_AGENTS, "single", SEED)), content(policy)
    assert first["policy.safetensors"] == last["policy.safetensors"]
    assert json.loads(first["metadata.json"])["curves"]
    assert json.loads(last["metadata.json"])["curves"] == []
    symbols = trained(tmp_path / "other", "symbols", market())
    assert sorted(content(symbols)) == ["metadata.json", "symbols.safetensors"]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("name", ["mappo", "single"])
def test_a_killed_run_ends_in_the_same_bytes(name: str, tmp_path: Path) -> None:
    plain = content(trained(tmp_path / "plain", name, market()))
    root = prepared(tmp_path / "killed", market())
    strategies.run(context(root, strategies))
    calls = 0

    def die(label: str, step: int, total: int, metrics: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KilledError

    keep = FileCheckpointer(root / "checkpoint")
    item = {"strategy": name, "seed": SEED}
    with pytest.raises(KilledError):
        train_symbol_agents.run(
            context(root, train_symbol_agents, item=item, make_checkpoint=lambda: keep, on_step=die)
        )
    assert not (root / policy_folder(SYMBOL_AGENTS, name, SEED)).exists()
    assert keep.load() is not None, "it was killed after its first checkpoint"
    train_symbol_agents.run(context(root, train_symbol_agents, item=item, make_checkpoint=lambda: keep))
    for stage, _ in PHASES[1:]:
        stage.run(context(root, stage, item=item))
    assert content(root / policy_folder(POLICIES, name, SEED)) == plain


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
