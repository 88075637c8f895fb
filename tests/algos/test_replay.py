"""The replay gives back what happened: compared with a record of plain lists, step by step."""

from __future__ import annotations

import pytest
import torch

from marl_pipeline.algos.common.replay import Replay
from marl_pipeline.envs.protocol import Discrete, GroupSpec
from tests.algos.wild import Wild, play

ENVS, GAMMA = 4, 0.9


def filled(steps, buffer_size, **options):
    return play(Wild(ENVS, 0), lambda env, first: Replay(env, first, buffer_size=buffer_size, **options), steps)


def located(replay, record):
    """Position -> (environment, step number) of every transition that the replay should still hold, and of final rows
    None."""
    places = {}
    for e, steps in enumerate(record.environments):
        row, rows = 0, []
        for number, step in enumerate(steps):
            rows.append((row, number))
            row += 1
            if bool(step.after.truncated):
                rows.append((row, None))
                row += 1
        assert row == int(replay.written[e])
        for row_number, number in rows:
            if row_number >= row - (replay.rows - 1):
                places[row_number % replay.rows * ENVS + e] = (e, number)
    return places


def settled(places, record, look_ahead):
    """Those with `look_ahead` steps after them, for which no reference has to look beyond the present."""
    return {
        position: (e, number)
        for position, (e, number) in places.items()
        if number is not None and number + look_ahead <= len(record.environments[e])
    }


@pytest.mark.parametrize("steps", range(20, 60))
def test_the_present_row_ends_nothing_whatever_it_overwrote(steps):
    replay, _ = filled(steps, 24)
    assert bool(replay.final.any())
    assert not bool(replay.final[replay.position(replay.written)].any())


@pytest.mark.parametrize(("steps", "buffer_size"), [(7, 100), (60, 100), (61, 100)])
def test_transitions_are_those_of_the_record(steps, buffer_size):
    replay, record = filled(steps, buffer_size)
    places = settled(located(replay, record), record, 1)
    assert len(places) > 20
    position = torch.tensor(list(places))
    got = replay.transitions(position, n=1, gamma=GAMMA)
    assert got.valid.all()
    for i, (e, number) in enumerate(places.values()):
        step = record.environments[e][number]
        assert torch.equal(got.now.state[i], step.before.state)
        assert got.team_returns[i] == step.after.team_reward
        assert got.team_factor[i] == (0.0 if step.after.terminated else torch.tensor(GAMMA))
        for name, group in step.before.groups.items():
            now, later = got.now.groups[name], got.later.groups[name]
            for field, value in group.observation.items():
                assert torch.equal(now.observation[field][i], value)
                assert now.observation[field].dtype == value.dtype
            assert torch.equal(now.action_mask[i], group.action_mask)
            assert torch.equal(now.acts[i], group.acts)
            assert torch.equal(now.present[i], group.present)
            assert torch.equal(got.action[name][i], step.actions[name])
            assert torch.equal(got.returns[name][i], step.after.groups[name].reward)
            assert torch.equal(got.factor[name][i], GAMMA * step.after.groups[name].discount)
            if not step.after.terminated:  # what follows a termination means nothing
                for field, value in step.after.groups[name].observation.items():
                    assert torch.equal(later.observation[field][i], value)
                assert torch.equal(later.action_mask[i], step.after.groups[name].action_mask)
                assert torch.equal(got.later.state[i], step.after.state)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_n_step_returns_of_the_team_stop_where_an_episode_does(n):
    replay, record = filled(60, 100)
    places = settled(located(replay, record), record, n)
    got = replay.transitions(torch.tensor(list(places)), n=n, gamma=GAMMA)
    for i, (e, number) in enumerate(places.values()):
        team, factor, reward, alive = 0.0, 1.0, torch.zeros(2), torch.ones(2)
        for step in record.environments[e][number : number + n]:
            team += factor * float(step.after.team_reward)
            factor *= GAMMA * (1.0 - float(step.after.terminated))
            reward = reward + alive * step.after.groups["a"].reward
            alive = alive * GAMMA * step.after.groups["a"].discount
            last = step
            if step.after.done:
                break
        assert got.team_returns[i] == pytest.approx(team, abs=1e-5)
        assert got.team_factor[i] == pytest.approx(factor)
        assert torch.allclose(got.returns["a"][i], reward, atol=1e-5)
        assert torch.allclose(got.factor["a"][i], alive)
        if factor > 0:
            assert torch.equal(got.later.state[i], last.after.state)


@pytest.mark.parametrize(("n", "look_ahead"), [(1, 1), (1, 4), (3, 3), (3, 6)])
@pytest.mark.parametrize("group", ["a", "b"])
def test_every_agent_runs_to_its_own_next_decision(n, look_ahead, group):
    replay, record = filled(60, 100)
    places = settled(located(replay, record), record, look_ahead)
    got = replay.decisions(group, torch.tensor(list(places)), n=n, look_ahead=look_ahead, gamma=GAMMA)
    found = 0
    for i, (e, number) in enumerate(places.values()):
        for agent in range(replay._observations[group].acts.shape[1]):
            returns, factor, later = reference_decision(record.environments[e], number, group, agent, n, look_ahead)
            decided = bool(record.environments[e][number].before.groups[group].acts[agent])
            assert bool(got.valid[i, agent]) == (decided and later is not None)
            if got.valid[i, agent]:
                found += 1
                assert got.returns[i, agent] == pytest.approx(returns, abs=1e-5)
                assert got.factor[i, agent] == pytest.approx(factor)
                if factor > 0:
                    assert torch.equal(got.later.observation["number"][i, agent], later.observation["number"][agent])
                    assert torch.equal(got.later.action_mask[i, agent], later.action_mask[agent])
    assert found > 20


def reference_decision(steps, number, group, agent, n, look_ahead):
    """Return, factor and the group's step at the agent's next decision (None when it was not found in time)."""
    returns, factor = 0.0, 1.0
    for k, step in enumerate(steps[number : number + look_ahead]):
        after = step.after.groups[group]
        returns += factor * float(after.reward[agent])
        factor *= GAMMA * float(after.discount[agent])
        if factor == 0.0 or step.after.done or (k + 1 >= n and bool(after.acts[agent])):
            return returns, factor, after
    return returns, factor, None


def test_windows_hold_consecutive_steps_and_mark_the_ends():
    length = 6
    replay, record = filled(60, 100)
    row = torch.arange(int(replay.written.min()) - 20, int(replay.written.min()) - length)
    position = torch.cat([replay.position(r.expand(ENVS)) for r in row])
    got = replay.windows(position, length)
    places = located(replay, record)
    seen_truncated = seen_end = 0
    for i, start in enumerate(position.tolist()):
        for k in range(length):
            here = (start + k * ENVS) % (replay.rows * ENVS)
            e, number = places[here]
            assert bool(got.valid[k, i]) == (number is not None)
            if number is None:
                assert got.ends[k, i]
                continue
            step = record.environments[e][number]
            assert got.team_reward[k, i] == step.after.team_reward
            assert torch.equal(got.outcomes["a"].action[k, i], step.actions["a"])
            assert torch.equal(got.outcomes["a"].reward[k, i], step.after.groups["a"].reward)
            assert bool(got.terminated[k, i]) == bool(step.after.terminated)
            assert bool(got.truncated[k, i]) == bool(step.after.truncated)
            assert bool(got.ends[k, i]) == bool(step.after.terminated)
            assert torch.equal(got.observations.state[k, i], step.before.state)
            if not step.after.terminated:
                assert torch.equal(got.observations.state[k + 1, i], step.after.state)
            seen_truncated += bool(step.after.truncated)
            seen_end += bool(step.after.terminated)
    assert seen_truncated > 5
    assert seen_end > 5


@pytest.mark.parametrize("stride", [1, 3])
def test_windows_start_with_the_memory_of_the_acting_policy(stride):
    replay, record = filled(60, 100, memory={"a": 1}, stride=stride)
    places = located(replay, record)
    position = replay.draw(200, 2, torch.Generator().manual_seed(0))
    got = replay.windows(position, 2).memory["a"]
    checked = 0
    for i, start in enumerate(position.tolist()):
        e, number = places[start]
        if number is not None:
            checked += 1
            assert torch.equal(got[i], record.environments[e][number].memory["a"])
    assert checked > 100


@pytest.mark.parametrize("steps", [10, 60])
def test_draws_are_uniform_over_what_may_be_drawn(steps):
    look_ahead = 3
    replay, record = filled(steps, 100)
    drawn = replay.draw(40_000, look_ahead, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=replay.rows * ENVS)
    written = replay.written.tolist()
    for e in range(ENVS):
        oldest = max(0, written[e] - (replay.rows - 1))
        allowed = [row % replay.rows * ENVS + e for row in range(oldest, written[e] - look_ahead + 1)]
        of_environment = counts[e::ENVS].sum()
        assert counts[torch.tensor(allowed)].sum() == of_environment, "a row was drawn that may not be"
        assert of_environment == pytest.approx(40_000 / ENVS, rel=0.05)
        assert counts[torch.tensor(allowed)].min() > 0.7 * of_environment / len(allowed)
    assert counts[[p for p in range(len(counts)) if p not in located(replay, record)]].sum() == 0


def test_drawing_too_early_is_refused():
    replay, _ = filled(2, 100)
    with pytest.raises(ValueError, match="no row has 50 rows after it"):
        replay.draw(1, 50, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("steps", [5, 60])
def test_a_restored_replay_is_the_same_and_goes_on_alike(steps):
    options = {"memory": {"a": 1}, "stride": 3}
    replay, _ = filled(steps, 100, **options)
    env = Wild(ENVS, 0)
    twin = Replay(env, env.reset(), buffer_size=100, **options)
    twin.load_state_dict(replay.state_dict())
    for name, table in replay._tables().items():
        assert torch.equal(table, twin._tables()[name]), name
    assert torch.equal(replay._memory["a"], twin._memory["a"])
    draws = [r.draw(50, 2, torch.Generator().manual_seed(1)) for r in (replay, twin)]
    assert torch.equal(*draws)
    assert torch.equal(replay.windows(draws[0], 2).memory["a"], twin.windows(draws[1], 2).memory["a"])


def test_a_known_two_step_return():
    """Rewards 1, 2, 4 with gamma 1/2: two steps from the first are 1 + 2/2 = 2, and what follows counts 1/4."""
    env = Ladder()
    replay = Replay(env, env.reset(), buffer_size=10)
    for _ in range(4):
        after = env.step({})
        replay.add({"a": torch.zeros(1, 1, dtype=torch.int64)}, after, after, {})
    got = replay.decisions("a", torch.tensor([0, 1]), n=2, look_ahead=2, gamma=0.5)
    assert got.returns.tolist() == [[2.0], [4.0]]
    assert got.factor.tolist() == [[0.25], [0.25]]
    assert got.later.observation["number"].tolist() == [[2.0], [3.0]]


class Ladder(Wild):
    """One environment, one agent; the reward doubles with every step and the observation counts them."""

    def __init__(self) -> None:
        super().__init__(1, 0)
        self.groups = {"a": GroupSpec(1, {"number": ()}, Discrete(3))}
        self._clock = -1

    def _group(self, name, terminated):
        step, self._clock = super()._group(name, terminated), self._clock + 1
        one = torch.ones(1, 1)
        return type(step)(
            {"number": self._clock * one}, step.action_mask[:, :1], one.bool(), one.bool(),
            one * 2.0 ** (self._clock - 1), one,
        )  # fmt: skip

    def step(self, actions):
        nothing = torch.zeros(1, dtype=torch.bool)
        return self._timestep(nothing, nothing)
