"""The proof of causality, through the whole chain: noise after bar t changes nothing that was decided up to t.

For t inside each held-out window, every bar and companion row after t is replaced by other valid ones. Features,
signals, the active embeddings, the tuned weights and all that the tuned policy decided and did up to t must be the same
bit for bit, and the decisions after t must not (or the test would hold for a policy that looks at nothing).

The proof is shown to bite: an agent that reads any one of its inputs one bar ahead, a companion that counts one bar
early and a tuning that reaches one bar too far must fail the same comparisons.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from marl_pipeline.agents.market_inputs import MarketInputs
from marl_pipeline.agents.trading_market import TradingMarket
from marl_pipeline.config import Params, load_params, parse_params
from marl_pipeline.data.assemble import assemble
from marl_pipeline.data.companions import Companions
from marl_pipeline.data.dataset import Dataset
from marl_pipeline.data.quality import clean
from marl_pipeline.data.sources.synthetic import synthetic_market
from marl_pipeline.data.windows import Span, Window
from marl_pipeline.evaluation.records import TABLES, Record
from marl_pipeline.evaluation.walk_forward import trade
from marl_pipeline.training.hierarchy import Tiers, hierarchy_policy
from tests.end_to_end.chain import Chain, run_chain, tune
from tests.end_to_end.reader import INPUTS, read_window

ROOT = Path(__file__).parents[2]
CLOSE = pd.Timedelta("20h")
"""When companions are known, after midnight UTC of their day: no later than New York closes on a whole day."""


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
    known = stamps + CLOSE
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
        after = (table["available_at"] > last + CLOSE).to_numpy()
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


def data_differences(one: Dataset, other: Dataset, t: int) -> list[str]:
    """Names of the tables of two data sets that differ at or before bar `t`."""
    names = ("features", "valid", "regime", "macro", "sentiment", "benchmark")
    upto = slice(0, t + 1)
    found = [name for name in names if not same(getattr(one, name)[upto], getattr(other, name)[upto])]
    return found + ["tradable"] * (not same(one.panel.tradable[upto], other.panel.tradable[upto]))


def differences(one: Record, other: Record, t: int) -> list[str]:
    """Names of the tables of two records that differ at or before bar `t`, where decisions are taken at its close."""
    found = []
    for name in TABLES:
        mine, theirs = (getattr(record, name) for record in (one, other))
        if not mine[mine["bar"] <= t].equals(theirs[theirs["bar"] <= t]):
            found.append(name)
    return found


@dataclass(frozen=True)
class Case:
    """The chain on noise after bar `t` of a held-out window, beside the original one."""

    window: Window
    t: int
    bars: pd.DataFrame
    companions: Companions
    after: Chain

    @property
    def played(self) -> Span:
        """The bars that the controls trade: the decision at `t`, after three of the master's periods, is the last."""
        return Span(self.t - 12, self.t + 2)


@pytest.fixture(scope="module")
def original() -> tuple[Params, pd.DataFrame, Companions, Chain]:
    torch.set_num_threads(1)
    params = small_params()
    bars, companions = market(params)
    return params, bars, companions, run_chain(params, bars, companions)


@pytest.fixture(scope="module")
def cases(original) -> list[Case]:
    """Two bars in each window, at which the master decides too."""
    params, bars, companions, before = original
    every = params.train_master.directives.decide_every
    made = []
    for window in before.windows:
        for place in (0.2, 0.7):
            t = window.test.start + int(place * len(window.test)) // every * every
            last = pd.Timestamp(before.dataset.panel.timestamps[t]).tz_localize("UTC")
            noisy_bars, noisy_companions = with_noise_after(bars, companions, last)
            after = run_chain(params, noisy_bars, noisy_companions, only=window.index)
            made.append(Case(window, t, noisy_bars, noisy_companions, after))
    return made


@pytest.mark.parametrize("number", range(4))
def test_noise_after_t_changes_nothing_up_to_t(original, cases, number):
    *_, before = original
    case = cases[number]
    t, after, window = case.t, case.after, case.window
    one, other = before.dataset, after.dataset
    assert same(one.panel.timestamps, other.panel.timestamps)
    assert data_differences(one, other, t) == []
    reacts = data_differences(one, other, one.bars)
    assert {"features", "regime", "macro", "sentiment", "benchmark"} <= set(reacts), "the noise reaches every table"
    for name in ("probabilities", "available"):
        assert same(getattr(before.signals, name)[: t + 1], getattr(after.signals, name)[: t + 1]), name

    version = before.version_at(t)
    mine, theirs = before.versions[version], after.versions[version]
    rows = slice(0, t + 1 - mine.embeddings.start)
    assert same(mine.embeddings.values[rows], theirs.embeddings.values[rows])
    assert all(torch.equal(mine.weights[name], theirs.weights[name]) for name in mine.weights)
    assert equal_weights(before.tuned[window.index], after.tuned[0])

    record, noisy = before.records[window.index], after.records[0]
    assert record.window == noisy.window == window.index
    assert differences(record, noisy, t) == []
    assert "decisions" in differences(record, noisy, window.test.stop), "the policy decides differently after t"


def equal_weights(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def played_differences(before: Chain, case: Case, play: Callable[[TradingMarket, Span], Record]) -> list[str]:
    """What of two records differs up to `t` when the same agent trades the original window and the noisy one."""
    version = before.version_at(case.window.test.start)
    return differences(*(play(chain.markets[version], case.played) for chain in (before, case.after)), case.t)


@pytest.mark.parametrize(("group", "name"), INPUTS, ids=[f"{group} {name}" for group, name in INPUTS])
def test_one_bar_ahead_fails_through_every_input(original, cases, group, name):
    """The control: an agent that hangs on this input alone passes, and fails when it reads that of the next bar."""
    *_, before = original
    failed = 0
    for case in cases:
        assert played_differences(before, case, partial(read_market, group, name, False)) == []
        found = played_differences(before, case, partial(read_market, group, name, True))
        assert set(found) <= {"decisions"}, "what is decided at t fills after it: only decisions can show it"
        failed += found == ["decisions"]
    assert failed, f"none of {len(cases)} bars shows that the agent saw the next one"


def read_market(group, name, ahead, market: TradingMarket, span: Span) -> Record:
    return read_window(market, group, name, span=span, ahead=ahead)


def test_the_trained_hierarchy_fails_when_it_is_shown_the_next_bar(original, cases, monkeypatch):
    params, *_, before = original
    tiers = Tiers(params.train_symbol_agents, params.train_master)

    def play(market: TradingMarket, span: Span) -> Record:
        environment = market.environment("portfolio", span, num_envs=1, episode=None, seed=0)
        policy = hierarchy_policy(market, tiers, before.tuned[case.window.index], "portfolio", span)
        return trade(environment, policy, market.dataset.panel, window=0, seed=0)

    for case in cases:
        assert played_differences(before, case, play) == []
    on_time = MarketInputs.__call__

    def early(self, group, observation):
        return on_time(self, group, {**observation, "bar": observation["bar"] + 1})

    monkeypatch.setattr(MarketInputs, "__call__", early)
    found = []
    for case in cases:
        found += played_differences(before, case, play)
    assert set(found) == {"decisions"}


COMPANIONS = {"vix": "regime", "macro": "macro", "sentiment": "sentiment", "benchmark": "benchmark"}
"""Companion -> the table of the data set that it goes into."""


@pytest.mark.parametrize("name", COMPANIONS)
def test_one_bar_ahead_fails_through_every_companion(original, cases, name):
    """The control: a companion whose rows count one bar before they are available."""
    params, bars, companions, before = original
    table = COMPANIONS[name]
    for case in (cases[0], cases[3]):
        early = [
            data_of(params, raw, one_bar_early(known, name), chain)
            for raw, known, chain in ((bars, companions, before), (case.bars, case.companions, case.after))
        ]
        assert data_differences(*early, case.t) == [table]
        assert data_differences(*early, case.t - 1) == []
        if name == "benchmark":  # what agents are paid and judged by; none of them reads it
            continue
        version = before.version_at(case.window.test.start)
        records = []
        for dataset, chain in zip(early, (before, case.after), strict=True):
            seen = TradingMarket.build(
                dataset, chain.signals, chain.versions[version].embeddings, params.market,
                params.train_master.directives, gamma=params.train_symbol_agents.gamma, device=torch.device("cpu"),
            )  # fmt: skip
            records.append(read_window(seen, "symbols", table, span=case.played, ahead=False))
        assert differences(*records, case.t) == ["decisions"]
        assert differences(*records, case.t - 1) == []


def one_bar_early(companions: Companions, name: str) -> Companions:
    table = getattr(companions, name).copy()
    groups = table.groupby("symbol")["available_at"] if "symbol" in table else table["available_at"]
    table["available_at"] = groups.shift(1).fillna(table["available_at"])
    return dataclasses.replace(companions, **{name: table})


def data_of(params: Params, bars: pd.DataFrame, companions: Companions, chain: Chain) -> Dataset:
    data = params.data
    return assemble(
        clean(bars, chain.quarantine), companions, params.build_features, frequency=data.frequency,
        calendar=data.calendar, adjustment=data.adjustment,
    )  # fmt: skip


def test_tuning_one_bar_into_what_follows_t_fails(original, cases):
    """The control: weights tuned on bars up to t are equal, on bars up to t + 1 they are not."""
    params, *_, before = original
    case = cases[0]
    version = before.version_at(case.window.test.start)

    def tuned_until(stop: int) -> bool:
        span = Span(stop - 10, stop)  # so short that episodes get to its last bar
        return equal_weights(
            *(tune(params, c.markets[version], before.weights, case.window, span) for c in (before, case.after))
        )

    assert case.window.tune.stop <= case.window.test.start - params.spans.embargo
    assert tuned_until(case.t + 1)
    assert not tuned_until(case.t + 2)


def test_every_mechanism_under_test_is_at_work(original):
    *_, chain = original
    assert len(chain.versions) == 2, "an encoder refit lies between the windows"
    assert chain.signals.available[: chain.windows[0].test.start].any()
    assert not np.isclose(chain.signals.probabilities[chain.signals.available], 1 / 3).all()
    for record in chain.records:
        assert len(record.trades) > 10, "the policy trades"
    for tuned in chain.tuned:
        assert not equal_weights(tuned, chain.weights), "every window is tuned"
