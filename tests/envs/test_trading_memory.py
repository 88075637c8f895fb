"""Memory of a compiled step: written again only when nobody can see it any more."""

from __future__ import annotations

import torch

from marl_pipeline.envs.trading.compiled.memory import KEPT, Block, BufferPool, merged, named

BLOCKS = merged(
    [
        Block((3,), torch.float64, named(after="shares", entries="price")),
        Block((), torch.int64, named(after="bar")),
        Block((3,), torch.float64, named(after="value")),
    ]
)


def test_blocks_of_one_shape_and_type_are_one() -> None:
    assert list(BLOCKS) == [
        Block((3,), torch.float64, named(after="shares", entries="price") + named(after="value")),
        Block((), torch.int64, named(after="bar")),
    ]


def test_tensors_and_arrays_show_the_same_memory() -> None:
    buffer = BufferPool(BLOCKS).take(2)
    tensors = buffer.tensors()
    assert {owner: set(named) for owner, named in tensors.items()} == {
        "after": {"shares", "bar", "value"},
        "entries": {"price"},
    }
    for number, (owner, name) in enumerate((("after", "shares"), ("after", "bar"), ("entries", "price"))):
        buffer.arrays[owner][name][:] = number
        assert tensors[owner][name].shape[0] == 2
        assert (tensors[owner][name] == number).all()
    assert tensors["after"]["bar"].dtype == torch.int64


def test_memory_that_anybody_can_see_is_not_handed_out_again() -> None:
    pool = BufferPool(BLOCKS)
    first = pool.take(2)
    views = {
        "a tensor": first.tensors()["after"]["bar"],
        "a view of one": first.tensors()["after"]["value"][1:, None].expand(-1, 4, -1),
        "an array over one": first.tensors()["entries"]["price"].numpy()[1],
        "a tensor over that": torch.from_numpy(first.tensors()["entries"]["price"].numpy()),
        "a detached alias": first.tensors()["after"]["shares"].detach(),
    }
    while views:
        assert pool.take(2) is not first, list(views)
        views.popitem()
    assert pool.take(2) is first


def test_another_number_of_environments_has_memory_of_its_own() -> None:
    pool = BufferPool(BLOCKS)
    assert pool.take(2).envs == 2
    assert pool.take(3).envs == 3
    assert pool.take(2).arrays["after"]["shares"].shape == (2, 3)


def test_a_caller_who_keeps_all_gets_new_memory_each_time() -> None:
    pool = BufferPool(BLOCKS)
    kept = []
    for number in range(3 * KEPT):
        buffer = pool.take(1)
        buffer.arrays["after"]["bar"][:] = number
        kept.append(buffer.tensors()["after"]["bar"])
    assert [int(bar) for bar in kept] == list(range(3 * KEPT))
