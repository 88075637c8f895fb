import numpy as np
import pytest
import torch
from torch import Tensor

from marl_pipeline.encoders.encoder import Cross, Encoder
from marl_pipeline.encoders.fusion import GatedFusion
from marl_pipeline.encoders.graph import MessagePassing
from marl_pipeline.encoders.temporal import AttentionBlock, BiLSTM, Convolution, Transformer
from tests.signals.learnable_market import WINDOW, encoder_params


def cross(bars: int = 3, symbols: int = 5, features: int = 4, seed: int = 0) -> Cross:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand((bars, symbols, 3), generator=generator)
    return Cross(
        windows=torch.randn((bars, symbols, WINDOW, features), generator=generator),
        valid=torch.rand((bars, symbols), generator=generator) < 0.7,
        neighbours=torch.randint(symbols, (bars, symbols, 3), generator=generator),
        weights=weights / weights.sum(-1, keepdim=True),
    )


def encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(WINDOW, 4, encoder_params()).eval()


@pytest.mark.parametrize(
    "reader", [Transformer(WINDOW, 8, 2, 2, 0.0), BiLSTM(8), Convolution(8, 0.0)], ids=lambda r: type(r).__name__
)
def test_a_reader_keeps_one_state_per_bar_and_sums_them_up_in_order(reader: torch.nn.Module) -> None:
    steps = torch.randn(3, WINDOW, 8, generator=torch.Generator().manual_seed(1))
    states, summary = reader(steps)
    assert states.shape == steps.shape
    assert summary.shape == (3, 8)
    assert not torch.allclose(summary, reader(steps.flip(1))[1], atol=1e-4)


def test_attention_needs_heads_that_divide_the_width() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        AttentionBlock(10, 4, 0.0)


@torch.no_grad()
def test_messages_are_the_weighted_mean_over_valid_neighbours() -> None:
    torch.manual_seed(0)
    layer, given = MessagePassing(8), cross()
    states = torch.randn(3, 5, 8)
    found = layer(states, given.valid, given.neighbours, given.weights)
    for b in range(3):
        for n in range(5):
            received, total = torch.zeros(8), 0.0
            for neighbour, weight in zip(given.neighbours[b, n], given.weights[b, n], strict=True):
                if given.valid[b, neighbour]:
                    received = received + weight * layer.message(states[b, neighbour])
                    total += float(weight)
            mean = received / total if total else received
            expected = layer.update(torch.cat([states[b, n], mean]))
            assert torch.allclose(found[b, n], expected, atol=1e-5)


@torch.no_grad()
def test_an_invalid_symbol_changes_nobody() -> None:
    layer, given = encoder(), cross()
    noise = torch.where(given.valid[..., None, None], given.windows, torch.randn_like(given.windows))
    assert torch.equal(layer(given)[0], layer(given._replace(windows=noise))[0])


@torch.no_grad()
def test_a_neighbour_changes_the_embedding_and_a_stranger_does_not() -> None:
    layer = encoder()
    neighbours = torch.tensor([[[1, 2], [0, 2], [0, 1], [4, 4], [3, 3]]])
    given = Cross(
        torch.randn(1, 5, WINDOW, 4), torch.ones(1, 5, dtype=torch.bool), neighbours, torch.full((1, 5, 2), 0.5)
    )
    moved = given.windows.clone()
    moved[0, 2] += 1.0
    changed = (layer(given)[0] != layer(given._replace(windows=moved))[0]).any(-1)[0]
    assert changed.tolist() == [True, True, True, False, False]


@torch.no_grad()
def test_embeddings_are_normed_and_zero_where_not_valid() -> None:
    given = cross()
    embedding, states = encoder()(given)
    assert states.shape == (3, 5, WINDOW, 8)
    assert (embedding[~given.valid] == 0).all()
    there = embedding[given.valid]
    assert torch.allclose(there.mean(-1), torch.zeros(len(there)), atol=1e-5)
    assert torch.allclose(there.var(-1, unbiased=False), torch.ones(len(there)), atol=1e-2)


@torch.no_grad()
def test_a_masked_value_is_not_seen() -> None:
    layer, given = encoder(), cross()
    mask = torch.zeros_like(given.windows, dtype=torch.bool)
    mask[:, :, 2:4] = True
    other = torch.where(mask, torch.randn_like(given.windows), given.windows)
    assert torch.equal(layer(given, mask)[0], layer(given._replace(windows=other), mask)[0])
    assert not torch.equal(layer(given)[0], layer(given._replace(windows=other))[0])


def test_every_module_learns_from_the_embedding() -> None:
    layer = encoder().train()
    given = cross()
    target = torch.randn(3, 5, 16)
    loss: Tensor = ((layer(given)[0] - target) ** 2).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    silent = [name for name, value in layer.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert silent == ["hidden"]  # the stand-in for masked values: nothing was masked


@torch.no_grad()
def test_fusion_weighs_its_views() -> None:
    torch.manual_seed(1)
    fusion = GatedFusion(2, 4, 6)
    left, right = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    fused = fusion(left, right)
    assert fused.shape == (2, 3, 6)
    assert not np.allclose(fused, fusion(right, left))
