"""What agents see of the market, column by column, and that each looks at the row of its own bar and symbol."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from marl_pipeline.agents.market_inputs import JoinedMarketInputs, MarketInputs
from marl_pipeline.agents.view import MarketView
from marl_pipeline.data.dataset import Dataset, Embeddings, Signals
from marl_pipeline.envs.protocol import Discrete, GroupSpec
from marl_pipeline.envs.wrappers import JOINED, STATE
from tests.data.market_panels import dataset_of, random_panel

BARS, SYMBOLS, START = 12, 3, 4
CPU = torch.device("cpu")


def numbered(*shape: int, first: float) -> np.ndarray:
    """Numbers that are all different."""
    return (first + np.arange(np.prod(shape), dtype=np.float32)).reshape(shape).astype(np.float32)


@pytest.fixture
def dataset() -> Dataset:
    valid = np.ones((BARS, SYMBOLS), dtype=bool)
    valid[6, 1] = False
    return replace(
        dataset_of(random_panel(1, BARS, SYMBOLS)),
        features=numbered(BARS, SYMBOLS, 2, first=100.0),
        valid=valid,
        sentiment=numbered(BARS, SYMBOLS, 1, first=1000.0),
        regime=numbered(BARS, 2, first=2000.0),
        macro=numbered(BARS, 1, first=3000.0),
    )


@pytest.fixture
def signals() -> Signals:
    available = np.ones((BARS, SYMBOLS), dtype=bool)
    available[7, 2] = False
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), (BARS, SYMBOLS, 2)).astype(np.float32)
    return Signals(("MLP72", "GRU93"), probabilities, available)


EMBEDDINGS = Embeddings(0, 3, START, numbered(BARS - START, SYMBOLS, 5, first=1.0))


def test_rows_are_embedding_features_signals_availability_and_sentiment(dataset: Dataset, signals: Signals) -> None:
    view = MarketView.build(dataset, signals, EMBEDDINGS, CPU)
    assert view.columns == {"embedding": 5, "features": 2, "signals": 6, "available": 2, "sentiment": 1}
    assert (view.start, view.symbol_width, view.market_width) == (START, 16, 3)
    assert view.symbol_rows.shape == (BARS - START, SYMBOLS, 16)
    for bar in range(START, BARS):
        for symbol in range(SYMBOLS):
            wanted = np.concatenate(
                [
                    EMBEDDINGS.values[bar - START, symbol],
                    dataset.features[bar, symbol],
                    signals.probabilities[bar, symbol].ravel() - 1 / 3,
                    [signals.available[bar, symbol], dataset.valid[bar, symbol]],
                    dataset.sentiment[bar, symbol],
                ]
            )
            assert view.symbol_rows[bar - START, symbol].tolist() == pytest.approx(wanted.tolist())
        wanted = np.concatenate([dataset.regime[bar], dataset.macro[bar]])
        assert view.market_rows[bar - START].tolist() == wanted.tolist()


def test_without_an_encoder_or_models_their_columns_are_left_out(dataset: Dataset) -> None:
    view = MarketView.build(dataset, None, None, CPU)
    assert view.columns == {"features": 2, "available": 1, "sentiment": 1}
    assert view.start == 0
    assert len(view.symbol_rows) == BARS
    assert view.symbol_rows[6, :, 2].tolist() == [1.0, 0.0, 1.0]


def test_who_has_a_symbol_sees_its_row_and_the_market_and_itself(dataset: Dataset, signals: Signals) -> None:
    view = MarketView.build(dataset, signals, EMBEDDINGS, CPU)
    groups = {
        "symbols": GroupSpec(2, {"bar": (), "symbol": (), "own": (2,)}, Discrete(3)),
        "master": GroupSpec(1, {"bar": (), "portfolio": (4,)}, Discrete(3)),
    }
    inputs = MarketInputs(view, groups)
    assert (inputs.width("symbols"), inputs.width("master")) == (16 + 3 + 2, 3 + 4)
    bar, symbol = torch.tensor([[5, 6], [11, 4]]), torch.tensor([[0, 2], [1, 1]])
    own = torch.randn(2, 2, 2)
    rows = inputs("symbols", {"bar": bar, "symbol": symbol, "own": own})
    for e in range(2):
        for a in range(2):
            row = int(bar[e, a]) - START
            wanted = torch.cat([view.symbol_rows[row, symbol[e, a]], view.market_rows[row], own[e, a]])
            assert torch.equal(rows[e, a], wanted)
    portfolio = torch.randn(2, 1, 4)
    rows = inputs("master", {"bar": bar[:, :1], "portfolio": portfolio})
    assert torch.equal(rows[:, 0], torch.cat([view.market_rows[bar[:, 0] - START], portfolio[:, 0]], -1))
    assert inputs.of({"master": groups["master"]}).width("master") == 7


def test_one_agent_for_all_symbols_sees_them_side_by_side(dataset: Dataset, signals: Signals) -> None:
    view = MarketView.build(dataset, signals, EMBEDDINGS, CPU)
    fields = {"bar": (SYMBOLS,), "symbol": (SYMBOLS,), "position": (SYMBOLS, 2), STATE: (4,)}
    inputs = JoinedMarketInputs(view, {JOINED: GroupSpec(1, fields, Discrete(3))})
    assert inputs.width(JOINED) == SYMBOLS * (16 + 2) + 3 + 4
    seen = {
        "bar": torch.tensor([[[5] * SYMBOLS], [[9] * SYMBOLS]]),
        "symbol": torch.arange(SYMBOLS).expand(2, 1, SYMBOLS),
        "position": torch.randn(2, 1, SYMBOLS, 2),
        STATE: torch.randn(2, 1, 4),
    }
    rows = inputs(JOINED, seen)
    assert rows.shape == (2, 1, inputs.width(JOINED))
    for e, bar in enumerate((5, 9)):
        symbols = [view.symbol_rows[bar - START, symbol] for symbol in range(SYMBOLS)]
        wanted = [*symbols, view.market_rows[bar - START], seen["position"][e, 0].flatten(), seen[STATE][e, 0]]
        assert torch.equal(rows[e, 0], torch.cat(wanted))
