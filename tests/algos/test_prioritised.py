"""The sum tree against plain sums, and what may be drawn when."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_pipeline.algos.common.prioritised import Priorities, PrioritySettings, SumTree
from marl_pipeline.algos.common.replay import Replay
from tests.algos.wild import Whim, Wild, play

CPU = torch.device("cpu")
SETTINGS = PrioritySettings.model_validate(
    {"exponent": 0.5, "importance": {"kind": "constant", "start": 1.0, "end": 1.0, "share": 1.0}, "floor": 1e-6}
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=37), st.randoms(use_true_random=False))
def test_a_mass_falls_into_the_leaf_of_the_running_total(values, random):
    tree = SumTree(len(values), CPU)
    order = list(range(len(values)))
    random.shuffle(order)
    half = len(order) // 2
    for part in (order[:half], order[half:], order[:half]):
        tree.set(torch.tensor(part, dtype=torch.int64), torch.tensor([values[i] for i in part]))
    stored = torch.tensor(values).double()
    assert float(tree.total) == pytest.approx(float(stored.sum()))
    if float(stored.sum()) > 0:
        mass = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * stored.sum()
        edges = stored.cumsum(0)
        for m, leaf in zip(mass.tolist(), tree.find(mass).tolist(), strict=True):
            assert values[leaf] > 0
            below = float(edges[leaf] - stored[leaf])
            assert below - 1e-9 * float(edges[-1]) <= m <= float(edges[leaf]) * (1 + 1e-9)


def test_of_a_leaf_named_twice_the_largest_value_stays():
    tree = SumTree(3, CPU)
    tree.set(torch.tensor([1, 1, 2]), torch.tensor([5.0, 2.0, 1.0]))
    assert float(tree.total) == 6.0


def drawable(priorities, count=4000):
    return set(priorities.draw(count, 0.0, torch.Generator().manual_seed(0))[0].tolist())


@pytest.mark.parametrize("look_ahead", [1, 3])
@pytest.mark.parametrize("pieces", [(5, 1, 30, 60), (90,)])
def test_every_settled_row_may_be_drawn_and_no_other(look_ahead, pieces):
    env, whole = Wild(3, 0), None
    timestep, policy, generator = env.reset(), Whim(), torch.Generator().manual_seed(0)
    whole = Replay(env, timestep, buffer_size=60)
    priorities = Priorities(whole, SETTINGS, look_ahead=look_ahead)
    for piece in pieces:
        for _ in range(piece):
            actions, _ = policy.act(timestep, policy.start(3), generator)
            after = env.step(actions)
            resumed = env.reset(after.done) if bool(after.done.any()) else after
            whole.add(actions, after, resumed, {})
            timestep = resumed
        priorities.welcome()
        wanted = set()
        for e in range(3):
            written = int(whole.written[e])
            for row in range(max(0, written - (whole.rows - 1)), written - look_ahead + 1):
                position = row % whole.rows * 3 + e
                if not whole.final[position]:
                    wanted.add(position)
        assert drawable(priorities) == wanted


def test_draws_follow_the_priorities_and_the_weights_undo_it():
    replay, _ = play(Wild(2, 0), lambda env, first: Replay(env, first, buffer_size=40), 15)
    priorities = Priorities(replay, SETTINGS, look_ahead=1)
    priorities.welcome()
    position = torch.tensor(sorted(drawable(priorities)))
    error = torch.arange(1.0, len(position) + 1)
    priorities.update(position, error)
    drawn, weight = priorities.draw(200_000, 0.0, torch.Generator().manual_seed(1))
    share = torch.bincount(drawn, minlength=int(position.max()) + 1)[position] / len(drawn)
    assert torch.allclose(share, error.sqrt() / error.sqrt().sum(), atol=1e-3)
    assert weight.max() == 1.0
    expected = {p: (1.0 / float(e)) ** 0.5 for p, e in zip(position.tolist(), error, strict=True)}
    for p, w in zip(drawn[:500].tolist(), weight[:500].tolist(), strict=True):
        assert w == pytest.approx(expected[p], rel=1e-4)


def test_new_rows_get_the_highest_priority_so_far():
    def make(env, first):
        return Replay(env, first, buffer_size=100)

    env = Wild(2, 0)
    replay, _ = play(env, make, 5)
    priorities = Priorities(replay, SETTINGS, look_ahead=1)
    priorities.welcome()
    old = torch.tensor(sorted(drawable(priorities)))
    priorities.update(old, torch.full((len(old),), 16.0))
    after = env.step({})
    actions = {"a": torch.zeros(2, 2, dtype=torch.int64), "b": torch.zeros(2, 1, 2)}
    replay.add(actions, after, env.reset(after.done), {})
    priorities.welcome()
    new = torch.tensor(sorted(drawable(priorities) - set(old.tolist())))
    assert len(new) > 0
    assert torch.allclose(priorities._tree[new], torch.tensor(4.0, dtype=torch.float64), rtol=1e-4)


def test_nothing_to_draw_is_refused():
    env = Wild(2, 0)
    priorities = Priorities(Replay(env, env.reset(), buffer_size=100), SETTINGS, look_ahead=1)
    priorities.welcome()
    with pytest.raises(ValueError, match="no row has 1 rows after it"):
        priorities.draw(1, 0.0, torch.Generator().manual_seed(0))
