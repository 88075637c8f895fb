"""The same environment through four libraries: each one's checker passes, and the same actions earn the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils import env_checker as gymnasium_checker
from gymnasium.wrappers import vector as vector_wrappers
from pettingzoo.test import parallel_api_test, parallel_seed_test
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import PPO
from stable_baselines3.common import env_checker as sb3_checker
from stable_baselines3.common.vec_env import VecCheckNan, VecMonitor
from torch import Tensor

from marl_pipeline.config import load_params
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.bridges.exports.features import MakeEnvironment, dense_fields
from marl_pipeline.envs.bridges.exports.gymnasium import GymnasiumVectorEnv
from marl_pipeline.envs.bridges.exports.pettingzoo import PettingZooParallelEnv
from marl_pipeline.envs.bridges.exports.stable_baselines3 import StableBaselines3VecEnv
from marl_pipeline.envs.particle.spread import SimpleSpread
from marl_pipeline.envs.protocol import GroupStep, Timestep
from marl_pipeline.envs.sampling import random_actions
from marl_pipeline.envs.trading.core.actions import DIRECTIVE_FIELDS
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.observation import POSITION_FIELDS
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv
from tests.algos.toy import Colours
from tests.envs.markets import hostile, market_params
from tests.envs.menagerie import Menagerie

EPISODE = 12


def make_trading(mode: Mode, num_envs: int = 1, symbols: int = 5) -> MakeEnvironment:
    params = market_params(portfolio_drawdown=0.1, account_drawdown=0.1, cool_down=3)
    market = Market.from_panel(hostile(np.random.default_rng(5), 80, symbols, 2), params)
    directives = load_params().train_master.directives
    span = Span(10, 70)

    def make(seed: int) -> TradingEnv:
        return TradingEnv(
            market, params, directives, mode=mode, num_envs=num_envs, span=span, episode=EPISODE, seed=seed
        )

    return make


class Mortal(Colours):
    """The colours, in which worker 1 dies after its third step."""

    def _timestep(self, worker_reward: Tensor, boss_reward: Tensor) -> Timestep:
        step = super()._timestep(worker_reward, boss_reward)
        dead = torch.stack([torch.zeros_like(self._step, dtype=torch.bool), self._step >= 3], -1)
        workers = step.groups["workers"]
        mortal = GroupStep(
            workers.observation, workers.action_mask, ~dead, ~dead, workers.reward * ~dead, (~dead).float()
        )
        return Timestep(
            {**step.groups, "workers": mortal}, step.state, step.team_reward, step.terminated, step.truncated, {}
        )


def hold_directive(timestep: Timestep) -> dict[str, Tensor]:
    return {"master": torch.full_like(timestep.groups["master"].acts, 47, dtype=torch.int64)}


class OneRow(gymnasium.Env[np.ndarray, int]):
    """The first row of a vector environment of one row, as the checkers of single environments want it."""

    def __init__(self, vector: GymnasiumVectorEnv) -> None:
        assert vector.num_envs == 1
        self.vector = vector
        self.observation_space, self.action_space = vector.single_observation_space, vector.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        observation, _ = self.vector.reset(seed=seed)
        return observation[0], {}

    def step(self, action: int) -> Any:
        observation, reward, terminated, truncated, _ = self.vector.step(np.array([action]))
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}


@pytest.fixture
def one_row() -> OneRow:
    return OneRow(GymnasiumVectorEnv(make_trading("accounts", symbols=1)))


def test_gymnasium_checks_a_row(one_row: OneRow) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(infinity|spec|render).*")
        gymnasium_checker.check_env(one_row, skip_render_check=True)


def test_stable_baselines3_checks_a_row(one_row: OneRow) -> None:
    sb3_checker.check_env(one_row)


def test_gymnasium_vector_wrappers_take_it_and_every_answer_fits_its_space() -> None:
    env = GymnasiumVectorEnv(make_trading("portfolio", num_envs=3), group="symbols", others=hold_directive)
    assert env.num_envs == 15
    wrapped = vector_wrappers.DictInfoToList(vector_wrappers.NormalizeReward(env))
    observation, _ = wrapped.reset(seed=3)
    env.action_space.seed(0)
    ends, final = [], 0
    for _ in range(2 * EPISODE):
        assert observation in env.observation_space
        actions = env.action_space.sample(mask=tuple(env.action_masks().astype(np.int8)))
        observation, reward, terminated, truncated, infos = wrapped.step(actions)
        assert reward.shape == terminated.shape == truncated.shape == (15,)
        assert not (terminated & truncated).any()
        ends.append(int((terminated | truncated).sum()))
        final += sum("final_obs" in info for info in infos)
    assert ends == ([0] * (EPISODE - 1) + [15]) * 2
    assert final == 30


def test_gymnasium_resets_in_the_step_an_episode_ends_and_keeps_its_last_observation() -> None:
    make = make_trading("accounts", num_envs=2)
    env, plain = GymnasiumVectorEnv(make, seed=1), make(1)
    env.reset()
    plain.reset(), plain.reset()  # the adapter resets once to learn the width
    hold = np.zeros(10, dtype=np.int64)
    for _ in range(EPISODE):
        observation, _, _, truncated, infos = env.step(hold)
        step = plain.step({"symbols": torch.zeros(2, 5, dtype=torch.int64)})
    assert truncated.all()
    last = dense_fields("symbols", step.groups["symbols"]).reshape(10, -1).numpy()
    np.testing.assert_array_equal(np.stack(infos["final_obs"]), last)
    fresh = plain.reset(step.done)
    np.testing.assert_array_equal(observation, dense_fields("symbols", fresh.groups["symbols"]).reshape(10, -1).numpy())


def test_a_seed_fixes_the_rows() -> None:
    env = GymnasiumVectorEnv(make_trading("accounts", num_envs=4))
    first, second, other = (env.reset(seed=seed)[1]["action_mask"] for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_an_agent_that_dies_is_terminated_once_and_stands_still_until_the_episode_ends() -> None:
    env = GymnasiumVectorEnv(
        lambda seed: Mortal(1, seed),
        group="workers",
        others=lambda step: {"boss": torch.zeros(1, 1, dtype=torch.int64)},
    )
    env.reset()
    ends, acts = [], []
    for _ in range(8):
        _, _, terminated, truncated, infos = env.step(np.zeros(2, dtype=np.int64))
        ends.append((bool(terminated[1]), bool(truncated[0])))
        acts.append(bool(infos["acts"][1]))
    assert ends == [(False, False)] * 2 + [(True, False)] + [(False, False)] * 4 + [(False, True)]
    assert acts == [True, True, False, False, False, False, False, True]


def test_stable_baselines3_finds_the_masks() -> None:
    env = StableBaselines3VecEnv(make_trading("accounts", num_envs=2))
    assert is_masking_supported(env)
    env.reset()
    masks = get_action_masks(VecMonitor(env))
    assert masks.shape == (10, 7)
    np.testing.assert_array_equal(masks, env.action_masks())


@pytest.mark.slow
def test_stable_baselines3_learns_on_it_with_masks() -> None:
    env = StableBaselines3VecEnv(make_trading("accounts", num_envs=2))
    watched = VecCheckNan(VecMonitor(env), raise_exception=True)
    env.seed(3)
    model = MaskablePPO("MlpPolicy", watched, n_steps=16, batch_size=40, n_epochs=1, seed=0, device="cpu")
    model.learn(320)
    chosen, _ = model.predict(watched.reset(), action_masks=get_action_masks(watched))
    assert env.action_masks()[np.arange(10), chosen].all()


def test_stable_baselines3_reports_what_ended_and_how() -> None:
    env = StableBaselines3VecEnv(make_trading("accounts", num_envs=2))
    env.reset()
    for _ in range(EPISODE):
        _, _, done, infos = env.step(np.zeros(10, dtype=np.int64))
    assert done.all()
    assert all(info["TimeLimit.truncated"] for info in infos)
    assert {info["terminal_observation"].shape for info in infos} == {(len(POSITION_FIELDS) + len(DIRECTIVE_FIELDS),)}


@pytest.mark.parametrize("mode", ["accounts", "portfolio"])
def test_pettingzoo_checks_it(mode: Mode) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(PettingZooParallelEnv(make_trading(mode)), num_cycles=40)
        parallel_seed_test(lambda: PettingZooParallelEnv(make_trading(mode)), num_cycles=30)


def test_pettingzoo_checks_agents_that_die() -> None:
    env = PettingZooParallelEnv(lambda seed: Mortal(1, seed))
    parallel_api_test(env, num_cycles=20)
    env.reset()
    alive = [len(env.agents)]
    for _ in range(8):
        _, _, terminated, truncated, _ = env.step(dict.fromkeys(env.agents, 0))
        alive.append(len(env.agents))
    assert alive == [3, 3, 3, 2, 2, 2, 2, 2, 0]
    assert truncated == {"workers_0": True, "boss_0": True}
    assert terminated == {"workers_0": False, "boss_0": False}


def test_pettingzoo_gives_the_state_to_central_critics() -> None:
    make = make_trading("portfolio")
    env, plain = PettingZooParallelEnv(make, seed=4), make(9)
    env.reset(seed=9)
    np.testing.assert_array_equal(env.state(), plain.reset().state[0].numpy())
    assert env.state() in env.state_space


def make_spread(continuous: bool, num_envs: int = 1) -> MakeEnvironment:
    return lambda seed: SimpleSpread(num_envs, seed=seed, episode=EPISODE, agents=2, continuous=continuous)


def make_menagerie(seed: int) -> Menagerie:
    return Menagerie(1, seed)


@pytest.mark.parametrize("continuous", [False, True])
def test_every_checker_passes_simple_spread(continuous: bool) -> None:
    alone = GymnasiumVectorEnv(lambda seed: SimpleSpread(1, seed=seed, agents=1, continuous=continuous))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(infinity|spec|render).*")
        warnings.filterwarnings("ignore", message=".*symmetric and normalized.*")  # strengths are from 0 to 1
        gymnasium_checker.check_env(OneRow(alone), skip_render_check=True)
        sb3_checker.check_env(OneRow(alone))
        parallel_api_test(PettingZooParallelEnv(make_spread(continuous)), num_cycles=30)
        parallel_seed_test(lambda: PettingZooParallelEnv(make_spread(continuous)), num_cycles=30)


def test_pettingzoo_checks_several_choices_and_numbers_at_once() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(PettingZooParallelEnv(make_menagerie), num_cycles=30)
        parallel_seed_test(lambda: PettingZooParallelEnv(make_menagerie), num_cycles=30)
    env = PettingZooParallelEnv(make_menagerie)
    seen, _ = env.reset(seed=1)
    assert [flags.tolist() for flags in seen["pickers_0"]["action_mask"]] == [[1, 1], [1, 1, 0]]
    assert isinstance(seen["drivers_0"], np.ndarray)
    with pytest.raises(ValueError, match=r"the action of pickers_0 must have shape \[2\], found \[\]"):
        env.step({"pickers_0": 1, "pickers_1": [0, 0], "drivers_0": [0.0, 0.0]})


def test_stable_baselines3_learns_with_numbers_and_with_several_masked_choices() -> None:
    spread = StableBaselines3VecEnv(make_spread(True, num_envs=2))
    PPO("MlpPolicy", VecCheckNan(spread, raise_exception=True), n_steps=8, batch_size=16, n_epochs=1).learn(64)

    def rest(step: Timestep) -> dict[str, Tensor]:
        return {"drivers": torch.zeros(1, 1, 2), "late": torch.zeros(1, 1, dtype=torch.int64)}

    pickers = StableBaselines3VecEnv(make_menagerie, group="pickers", others=rest)
    model = MaskablePPO("MlpPolicy", pickers, n_steps=8, batch_size=16, n_epochs=1, seed=0)
    model.learn(32)
    chosen, _ = model.predict(pickers.reset(), action_masks=get_action_masks(pickers), deterministic=False)
    assert chosen.shape == (2, 2)
    assert (chosen[:, 1] < 2).all()


EpisodeResults = Iterator[dict[str, float]]
Script = list[dict[str, Tensor]]


def script(make: MakeEnvironment) -> tuple[Script, list[dict[str, float]]]:
    """Random allowed actions over one episode, and what the environment itself pays for them."""
    env, generator = make(11), torch.Generator().manual_seed(2)
    step, actions, rewards = env.reset(), [], []
    while not bool(step.done[0]):
        actions.append(random_actions(env.groups, step, generator))
        step = env.step(actions[-1])
        rewards.append(
            {
                f"{g}_{i}": float(r)
                for g, group_step in step.groups.items()
                for i, r in enumerate(group_step.reward[0].tolist())
            }
        )
    return actions, rewards


def through_gymnasium(make: MakeEnvironment, actions: Script) -> EpisodeResults:
    upcoming, group = iter(actions), next(iter(actions[0]))
    env = GymnasiumVectorEnv(make, group=group, others=lambda _: without(group, next(upcoming)))
    env.reset(seed=11)
    for action in actions:
        yield {f"{group}_{i}": float(r) for i, r in enumerate(env.step(action[group][0].numpy())[1])}


def through_stable_baselines3(make: MakeEnvironment, actions: Script) -> EpisodeResults:
    upcoming, group = iter(actions), next(iter(actions[0]))
    env = StableBaselines3VecEnv(make, group=group, others=lambda _: without(group, next(upcoming)))
    env.seed(11)
    env.reset()
    for action in actions:
        yield {f"{group}_{i}": float(r) for i, r in enumerate(env.step(action[group][0].numpy())[1])}


def without(group: str, action: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: chosen for name, chosen in action.items() if name != group}


def named(action: dict[str, Tensor]) -> dict[str, Any]:
    return {f"{g}_{i}": a for g, chosen in action.items() for i, a in enumerate(chosen[0].tolist())}


def through_pettingzoo(make: MakeEnvironment, actions: Script) -> EpisodeResults:
    env = PettingZooParallelEnv(make)
    env.reset(seed=11)
    for action in actions:
        yield env.step({name: chosen for name, chosen in named(action).items() if name in env.agents})[1]


def through_rllib(make: MakeEnvironment, actions: Script) -> EpisodeResults:
    from marl_pipeline.envs.bridges.exports.rllib import RLlibMultiAgentEnv

    env = RLlibMultiAgentEnv(make)
    seen, _ = env.reset(seed=11)
    for action in actions:
        seen, reward, *_ = env.step({name: chosen for name, chosen in named(action).items() if name in seen})
        yield reward


ADAPTERS: dict[str, Callable[[MakeEnvironment, Script], EpisodeResults]] = {
    "gymnasium": through_gymnasium,
    "stable_baselines3": through_stable_baselines3,
    "pettingzoo": through_pettingzoo,
    "rllib": through_rllib,
}


@pytest.mark.parametrize(
    "make",
    [make_trading("accounts"), make_trading("portfolio"), make_spread(False), make_spread(True)],
    ids=["accounts", "portfolio", "spread", "continuous spread"],
)
def test_the_same_actions_earn_the_same_through_every_adapter(make: MakeEnvironment) -> None:
    actions, rewards = script(make)
    assert sum(abs(reward) for step in rewards for reward in step.values()) > 1.0
    shown = next(iter(actions[0]))
    for library, play in ADAPTERS.items():
        played = list(play(make, actions))
        assert len(played) == len(rewards) == EPISODE
        for found, wanted in zip(played, rewards, strict=True):
            names = [name for name in wanted if name.startswith(shown) or library in ("pettingzoo", "rllib")]
            assert found == {name: wanted[name] for name in names}, library


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="who decides for \\['master'\\]"):
        GymnasiumVectorEnv(make_trading("portfolio"), group="symbols")
    with pytest.raises(ValueError, match="none of"):
        GymnasiumVectorEnv(make_trading("portfolio"))
    with pytest.raises(ValueError, match="one environment"):
        PettingZooParallelEnv(make_trading("accounts", num_envs=2))
    with pytest.raises(ValueError, match="actions must be"):
        GymnasiumVectorEnv(make_trading("accounts")).step(np.zeros(4, dtype=np.int64))
    env = PettingZooParallelEnv(make_trading("accounts"))
    env.reset()
    with pytest.raises(ValueError, match="missing: \\['symbols_1'"):
        env.step({"symbols_0": 0})
