"""RLlib's own checks and runner on the adapter: agents on their own clocks, masks, agents that die."""

from __future__ import annotations

import numpy as np
import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module import MultiRLModuleSpec, RLModuleSpec
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule
from ray.rllib.utils.pre_checks.env import check_multiagent_environments
from ray.tune.registry import register_env

from marl_pipeline.envs.bridges.exports.features import MakeEnvironment
from marl_pipeline.envs.bridges.exports.rllib import ALL, RLlibMultiAgentEnv
from marl_pipeline.envs.trading.core.partition import Mode
from tests.envs.bridges.exports.test_adapters import EPISODE, Mortal, make_menagerie, make_spread, make_trading


@pytest.mark.parametrize("mode", ["accounts", "portfolio"])
def test_rllib_checks_it(mode: Mode) -> None:
    env = RLlibMultiAgentEnv(make_trading(mode))
    check_multiagent_environments(env)
    seen, _ = env.reset(seed=1)
    for name, observation in seen.items():
        assert observation in env.get_observation_space(name)


@pytest.mark.parametrize("make", [make_spread(True), make_menagerie], ids=["continuous spread", "menagerie"])
def test_rllib_checks_numbers_and_several_choices(make: MakeEnvironment) -> None:
    env = RLlibMultiAgentEnv(make)
    check_multiagent_environments(env)
    seen, _ = env.reset(seed=1)
    for name, observation in seen.items():
        assert observation in env.get_observation_space(name)


def test_the_master_is_asked_on_its_own_clock_and_paid_at_every_step() -> None:
    env = RLlibMultiAgentEnv(make_trading("portfolio"))
    seen, _ = env.reset(seed=1)
    asked, paid = ["master_0" in seen], []
    for _ in range(EPISODE):
        seen, reward, terminated, truncated, _ = env.step(dict.fromkeys(seen, 0))
        asked.append("master_0" in seen)
        paid.append("master_0" in reward)
    assert asked == [step % 4 == 0 for step in range(EPISODE)] + [True]
    assert all(paid)
    assert truncated[ALL]
    assert not terminated[ALL]


def test_an_agent_that_dies_is_seen_once_more_and_then_no_more() -> None:
    env = RLlibMultiAgentEnv(lambda seed: Mortal(1, seed))
    seen, _ = env.reset(seed=0)
    ended: set[str] = set()
    dead = []
    for _ in range(8):
        seen, reward, terminated, _, _ = env.step({name: 0 for name in seen if name not in ended})
        ended = {name for name, over in terminated.items() if over}
        dead.append(("workers_1" in seen, terminated.get("workers_1", False), "workers_1" in reward))
    assert dead[:3] == [(True, False, True), (True, False, True), (True, True, True)]
    assert dead[3:] == [(False, False, False)] * 5


@pytest.mark.slow
def test_its_runner_samples_episodes_with_the_masks_kept() -> None:
    make = make_trading("portfolio")
    probe = RLlibMultiAgentEnv(make)
    register_env("market", lambda _: RLlibMultiAgentEnv(make))
    first = {"symbols": "symbols_0", "master": "master_0"}
    config = (
        PPOConfig()
        .environment("market")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=1)
        .multi_agent(policies=set(first), policy_mapping_fn=lambda agent, *_, **__: agent.rsplit("_", 1)[0])
        .rl_module(
            rl_module_spec=MultiRLModuleSpec(
                rl_module_specs={
                    group: RLModuleSpec(
                        module_class=ActionMaskingTorchRLModule,
                        observation_space=probe.get_observation_space(name),
                        action_space=probe.get_action_space(name),
                        model_config={"head_fcnet_hiddens": [8]},
                    )
                    for group, name in first.items()
                }
            )
        )
    )
    runner = MultiAgentEnvRunner(config=config)
    for episode in runner.sample(num_episodes=2, random_actions=False):
        assert len(episode) == EPISODE
        assert len(episode.agent_episodes["master_0"]) == 3
        for name, single in episode.agent_episodes.items():
            masks = single.get_observations()["action_mask"][:-1]
            actions = np.asarray(single.get_actions())
            assert masks[np.arange(len(actions)), actions].all(), name
