import numpy as np
import pytest
import torch
from torch import nn

from marl_pipeline.signals.fit import CHUNK, predict
from marl_pipeline.signals.latency import inference_latency
from marl_pipeline.signals.models import Recurrent, build
from marl_pipeline.signals.samples import Samples, Windows
from tests.signals.learnable_market import WINDOW, learnable_market

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "hidden"), [("MLP72", 72), ("LSTM62", 62), ("GRU93", 93)])
def test_the_number_in_a_name_is_the_hidden_width(name: str, hidden: int) -> None:
    module = build(name, window=24, features=5, dropout=0.0)
    assert module(torch.zeros(7, 24, 5)).shape == (7, 3)
    if isinstance(module, Recurrent):
        assert module.cell.hidden_size == hidden
    else:
        assert {layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear)} == {hidden, 3}


def test_a_window_is_the_bars_up_to_its_own() -> None:
    dataset = learnable_market(60, 4)
    windows = Windows.of(dataset, WINDOW, CPU)
    bar, symbol = np.array([5, 30, 59, 59]), np.array([0, 2, 3, 0])
    found = windows.ending_at(torch.from_numpy(bar), torch.from_numpy(symbol))
    for row, t, n in zip(found, bar, symbol, strict=True):
        assert np.array_equal(row.numpy(), dataset.features[t - WINDOW + 1 : t + 1, n])


@pytest.mark.parametrize("name", ["MLP72", "LSTM62", "GRU93"])
def test_an_answer_does_not_depend_on_how_many_are_asked(name: str) -> None:
    dataset = learnable_market(400, 6)
    windows = Windows.of(dataset, WINDOW, CPU)
    torch.manual_seed(0)
    module = build(name, WINDOW, 4, 0.1)
    bar, symbol = np.nonzero(dataset.valid)
    every = predict(module, windows, Samples(bar, symbol), CPU)
    assert len(every) > 2 * CHUNK
    for count in (1, 3, CHUNK, CHUNK + 1):
        assert np.array_equal(predict(module, windows, Samples(bar[:count], symbol[:count]), CPU), every[:count])
    assert predict(module, windows, Samples(bar[:0], symbol[:0]), CPU).shape == (0, 3)


def test_a_sample_is_drawn_without_replacement_and_in_order() -> None:
    samples = Samples(np.arange(100), np.arange(100) % 7)
    drawn = samples.draw(30, np.random.default_rng(0))
    assert len(drawn) == 30
    assert (np.diff(drawn.bar) > 0).all()
    assert np.array_equal(drawn.symbol, drawn.bar % 7)
    assert samples.draw(100, np.random.default_rng(0)) is samples


def test_inference_times_are_ordered_and_positive() -> None:
    times = inference_latency(build("MLP72", 24, 5, 0.0), 24, 5, batch=20, repeats=20, warm_up=2)
    assert 0 < times["p50_us"] <= times["p95_us"] <= times["p99_us"]
    assert times["rows_per_second"] > 0
