"""The proof of causality, through the whole chain: noise after bar t changes nothing that was said up to t.

For t inside each held-out window, every bar and companion row after t is replaced by other valid ones. Features,
signals, the embeddings in force and all that the tuned policy did up to t must be the same bit for bit, and the
decisions after t must not (or the test would hold for a policy that looks at nothing).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from marl_pipeline.config import Params, load_params, parse_params
from marl_pipeline.data.companions import Companions
from marl_pipeline.data.sources.synthetic import synthetic_market
from marl_pipeline.data.windows import version_in_force
from tests.end_to_end.chain import Chain, run_chain

ROOT = Path(__file__).parents[2]


def small_params() -> Params:
    """Every mechanism at its smallest: two windows, an encoder refit between them, tuning in each."""
    values = load_params(ROOT / "params.yaml").model_dump(mode="json")

    def put(path: str, value: object) -> None:
        *sections, key = path.split(".")
        place = values
        for section in sections:
            place = place[section]
        assert key in place, path
        place[key] = value

    put("data.adjustment", "split")
    put("data.synthetic", {"symbols": 5, "bars": 460, "seed": 3, "signal": 0.1, "half_life": 20})
    put("build_features.scale_window", 60)
    put("build_features.regime_window", 40)
    put("spans.test_fraction", 0.3)
    put("sl_signals.first_fit", 200)
    put("sl_signals.refit_every", 80)
    put("sl_signals.max_samples", 400)
    put("sl_signals.epochs", 1)
    put("pretrain_encoder.embedding", 16)
    put("pretrain_encoder.width", 16)
    put("pretrain_encoder.steps", 6)
    put("pretrain_encoder.refit_every", 40)
    put("pretrain_encoder.refit_steps", 3)
    put("pretrain_encoder.correlation_window", 40)
    put("pretrain_encoder.graph_neighbours", 2)
    for section, settings in (("train_symbol_agents", "ppo"), ("train_master", "mappo")):
        put(f"{section}.envs", 4)
        put(f"{section}.episode", 32)
        put(f"{section}.{settings}.horizon", 16)
        put(f"{section}.{settings}.network.hidden", [16])
    put("train_symbol_agents.ppo.learning_rate", 0.01)
    values["train_symbol_agents"]["curriculum"] = [{"name": "full", "symbols": 1.0, "calm": 1.0, "iterations": 4}]
    put("train_master.iterations", 2)
    put("fine_tune.iterations", 2)
    put("walk_forward.windows", [0, 1])
    put("walk_forward.tune_bars", 80)
    put("walk_forward.tune_iterations", 2)
    return parse_params(values, "the test")


def market(params: Params) -> tuple[pd.DataFrame, Companions]:
    drawn = synthetic_market(params.data.synthetic)
    rng = np.random.default_rng(0)
    stamps = pd.DatetimeIndex(drawn.timestamps).tz_localize("UTC")
    known = stamps + pd.Timedelta("21h")
    dated = {"timestamp": stamps, "available_at": known}
    vix = pd.DataFrame({**dated, "close": np.exp(3 + 0.1 * rng.standard_normal(len(stamps)).cumsum() / 5)})
    macro = pd.DataFrame({**dated, "DFF": rng.standard_normal(len(stamps)).cumsum()})
    benchmark = pd.DataFrame({**dated, "close": np.exp(0.01 * rng.standard_normal(len(stamps)).cumsum())})
    sentiment = pd.concat(
        [
            pd.DataFrame({"symbol": symbol, **dated, "tweets": rng.poisson(20, len(stamps)).astype(float)})
            for symbol in drawn.symbols[:3]
        ],
        ignore_index=True,
    ).astype({"symbol": "str"})
    return drawn.bars, Companions(
        sectors=drawn.sectors, vix=vix, macro=macro, benchmark=benchmark, sentiment=sentiment, benchmark_name="B"
    )


def with_noise_after(bars: pd.DataFrame, companions: Companions, last: pd.Timestamp) -> tuple[pd.DataFrame, Companions]:
    """Other valid bars after the bar that starts at `last`, and other companion rows known after its close."""
    rng = np.random.default_rng(99)
    bars = bars.copy()
    later = (bars["timestamp"] > last).to_numpy()
    count = int(later.sum())
    factor = np.exp(0.05 * rng.standard_normal(count))
    for name in ("open", "high", "low", "close"):
        bars.loc[later, name] = bars.loc[later, name].to_numpy() * factor
    bars.loc[later, "volume"] = rng.uniform(1e3, 1e7, count)

    def noisy(table: pd.DataFrame | None) -> pd.DataFrame | None:
        if table is None:
            return None
        table = table.copy()
        after = (table["available_at"] > last + pd.Timedelta("21h")).to_numpy()
        for name in table.select_dtypes("number").columns:
            table.loc[after, name] = table.loc[after, name].to_numpy() * rng.uniform(0.5, 2.0, int(after.sum()))
        return table

    return bars, dataclasses.replace(
        companions,
        vix=noisy(companions.vix),
        macro=noisy(companions.macro),
        benchmark=noisy(companions.benchmark),
        sentiment=noisy(companions.sentiment),
    )


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.fixture(scope="module")
def original() -> tuple[Params, pd.DataFrame, Companions, Chain]:
    torch.set_num_threads(1)
    params = small_params()
    bars, companions = market(params)
    return params, bars, companions, run_chain(params, bars, companions)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("place", [0.2, 0.7])
def test_noise_after_t_changes_nothing_up_to_t(original, index, place):
    params, bars, companions, before = original
    window = before.windows[index]
    t = window.test.start + int(place * len(window.test))
    last = pd.Timestamp(before.dataset.panel.timestamps[t]).tz_localize("UTC")
    noisy_bars, noisy_companions = with_noise_after(bars, companions, last)
    after = run_chain(params, noisy_bars, noisy_companions, only=index)

    one, other, upto = before.dataset, after.dataset, slice(0, t + 1)
    assert same(one.panel.timestamps, other.panel.timestamps)
    for name in ("features", "valid", "regime", "macro", "sentiment", "benchmark"):
        assert same(getattr(one, name)[upto], getattr(other, name)[upto]), name
        if name != "valid":
            assert not same(getattr(one, name), getattr(other, name)), f"{name} does not react to its own data"
    assert same(one.panel.tradable[upto], other.panel.tradable[upto])
    for name in ("probabilities", "available"):
        assert same(getattr(before.signals, name)[upto], getattr(after.signals, name)[upto]), name

    version = version_in_force(tuple(v.refit for v in before.versions), t).version
    mine, theirs = before.versions[version], after.versions[version]
    rows = slice(0, t + 1 - mine.embeddings.start)
    assert same(mine.embeddings.values[rows], theirs.embeddings.values[rows])
    assert all(torch.equal(mine.weights[name], theirs.weights[name]) for name in mine.weights)

    record, noisy = before.records[index], after.records[0]
    assert record.window == noisy.window == index
    for name in ("equity", "positions", "trades"):
        table, changed = getattr(record, name), getattr(noisy, name)
        pd.testing.assert_frame_equal(
            table[table["bar"] <= t].reset_index(drop=True),
            changed[changed["bar"] <= t].reset_index(drop=True),
            check_exact=True,
        )
    assert not record.equity["equity"].equals(noisy.equity["equity"]), "the policy did nothing after t"


def test_every_mechanism_under_test_is_at_work(original):
    *_, chain = original
    assert len(chain.versions) == 2, "an encoder refit lies between the windows"
    assert chain.signals.available[: chain.windows[0].test.start].any()
    assert not np.isclose(chain.signals.probabilities[chain.signals.available], 1 / 3).all()
    for record in chain.records:
        assert len(record.trades) > 10, "the policy trades"
    assert all(record.tuning is not None for record in chain.records)
