"""The trading market as an environment that any algorithm of the protocol trains on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkouts import small_checkout

from marl_pipeline.agents import registry
from marl_pipeline.checkpoint import FileCheckpointer
from marl_pipeline.data.windows import split
from marl_pipeline.envs.protocol import MultiDiscrete
from marl_pipeline.envs.sampling import random_actions
from marl_pipeline.errors import UserError
from marl_pipeline.evaluation.greedy import greedy_episodes, greedy_returns
from marl_pipeline.experiments.execution import load, train
from marl_pipeline.experiments.job import Job
from marl_pipeline.pipeline import overlay
from marl_pipeline.scenarios.presets import choose
from marl_pipeline.scenarios.registry import scenario

SMALL = {
    "qmix": {"envs": 4, "learning_starts": 32, "batch": 8, "buffer_size": 1024},
    "idqn": {"envs": 4, "learning_starts": 32, "batch": 8, "buffer_size": 1024},
    "ippo": {"envs": 4, "horizon": 8, "epochs": 1},
    "mappo": {"envs": 4, "horizon": 8, "epochs": 1},
    "hierarchy": {"envs": 4, "symbols": {"horizon": 8, "epochs": 1}, "master": {"horizon": 8, "epochs": 1}},
}
RUNS = [(name, algo) for name in ("market/portfolio", "market/accounts") for algo in SMALL]
RUNS.remove(("market/accounts", "mappo"))  # accounts have no global state for a central critic


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout on the smoke profile: four symbols, 400 bars, episodes of 24 steps."""
    folder = small_checkout(tmp_path_factory.mktemp("checkout"))
    overlay.write(folder, overlay.merge(folder, "smoke"))
    return folder


@pytest.mark.parametrize(("name", "algo"), RUNS)
def test_symbols_and_master_learn_together(root: Path, name: str, algo: str) -> None:
    made = scenario(root, name, {}, "cpu")
    chosen = choose(algo, name, SMALL[algo])
    environment = made.training(chosen.envs, 0)
    groups = {"symbols": 4, "master": 1} if name == "market/portfolio" else {"symbols": 4}
    assert {group: spec.agents for group, spec in environment.groups.items()} == groups
    learner = registry.build(algo, environment, made.inputs, chosen.settings, seed=0, timesteps=400)
    before = {key: value.clone() for key, value in learner.policy.module.state_dict().items()}
    steps = 0
    while steps < 128:
        steps += learner.iterate().steps
    after = learner.policy.module.state_dict()
    for group in groups:
        moved = [key for key in before if key.startswith(group) and not torch.equal(before[key], after[key])]
        assert moved, f"{group} learned nothing"
    returns = greedy_returns(made.test(6, 0), learner.policy)
    assert returns.shape == (6,)
    assert bool(torch.isfinite(returns).all())


def test_runs_are_tested_on_bars_that_they_do_not_learn_from(root: Path) -> None:
    made = scenario(root, "market/portfolio", {"episode": 30}, "cpu")
    training, test = made.training(2, 0), made.test(2, 0)
    spans = split(training.market.bars, overlay_params(root).spans)
    assert (training.span, test.span) == (spans.train, spans.validation)


def test_the_rows_are_those_of_the_agents_bar_and_symbol(root: Path) -> None:
    made = scenario(root, "market/portfolio", {}, "cpu")
    environment = made.training(3, 1)
    timestep = environment.reset()
    symbols, master = (timestep.groups[group].observation for group in ("symbols", "master"))
    rows = made.inputs("symbols", symbols)
    assert rows.shape == (3, 4, made.inputs.width("symbols"))
    assert made.inputs("master", master).shape == (3, 1, made.inputs.width("master"))
    window = {field: torch.stack([value, value]) for field, value in symbols.items()}
    assert torch.equal(made.inputs("symbols", window)[1], rows)
    moved = {**symbols, "bar": symbols["bar"] + 1}
    own = environment.groups["symbols"].observation["position"][0] + 6
    assert torch.equal(made.inputs("symbols", moved)[..., -own:], rows[..., -own:])
    assert not torch.equal(made.inputs("symbols", moved)[..., :-own], rows[..., :-own])


def test_a_changed_market_is_another_run(root: Path) -> None:
    facts = dict(scenario(root, "market/portfolio", {}, "cpu").facts)
    assert facts == dict(scenario(root, "market/portfolio", {}, "cpu").facts)
    other = dict(scenario(root, "market/portfolio", {"reward": "guide_v3_2"}, "cpu").facts)
    assert facts["market"] != other["market"]
    assert facts["data"] == other["data"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"episodes": 3}, "unknown parameter 'episodes'; did you mean 'episode'"),
        ({"reward": "gross"}, "parameter 'reward'"),
        ({"embeddings": True}, "run the stage pretrain_encoder first"),
    ],
)
def test_mistakes_are_named(root: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        scenario(root, "market/portfolio", options, "cpu")


def overlay_params(root: Path):
    from marl_pipeline.config import load_params

    return load_params(root / "params.yaml")


def test_the_hierarchy_refuses_one_agent_for_the_whole_portfolio(root: Path) -> None:
    made = scenario(root, "market/single", {}, "cpu")
    settings = registry.choose("hierarchy", {}).settings
    with pytest.raises(UserError, match=r"'agent' \(MultiDiscrete\); choose market/portfolio or market/accounts"):
        registry.build("hierarchy", made.training(1, 0), made.inputs, settings, seed=0, timesteps=100)


@pytest.mark.parametrize("engine", ["torch", "sb3"])
def test_one_agent_learns_to_trade_the_whole_portfolio(root: Path, tmp_path: Path, engine: str) -> None:
    made = scenario(root, "market/single", {"episode": 12}, "cpu")
    environment = made.training(2, 0)
    spec = environment.groups["agent"]
    assert (spec.agents, spec.actions) == (1, MultiDiscrete((7,) * 4))
    reported: dict[str, float] = {}
    job = job_of("market/single", "ppo", {"envs": 4, "horizon": 12, "epochs": 1, "minibatches": 1}, engine=engine)
    done = train(
        job,
        made,
        tmp_path,
        evaluate=lambda policy: greedy_episodes(made.test(4, 0), policy, made.metrics),
        checkpoint=FileCheckpointer(tmp_path),
        on_step=lambda label, step, total, metrics: reported.update(metrics),
    )
    for figure in ("net_return", "drawdown", "turnover", "costs", "trades"):
        assert {f"episode/{figure}", f"test/{figure}"} <= set(reported), "of training, and of the greedy evaluation"
    assert done.steps >= job.timesteps
    settings = registry.parse("ppo", job.settings).settings
    untrained = registry.build("ppo", environment, made.inputs, settings, seed=0, timesteps=1)
    learned = load(job, made, tmp_path)
    pairs = zip(untrained.policy.module.parameters(), learned.module.parameters(), strict=True)
    assert all(not torch.equal(before, after) for before, after in pairs)
    test = made.test(4, 0)
    timestep = test.reset()
    actions, _ = learned.act(timestep, {}, None)
    allowed = timestep.groups["agent"].action_mask.view(4, 4, 7)
    assert bool(allowed.gather(-1, actions["agent"].view(4, 4, 1)).all())


def test_one_agent_trades_the_book_that_the_symbols_trade(root: Path) -> None:
    """The same orders, the same equity, and the reward of the one is the portfolio's."""
    made = scenario(root, "market/single", {"episode": 12}, "cpu")
    single, apart = made.training(3, 5), made.training(3, 5)
    timestep = single.reset()
    apart.reset()
    rows = made.inputs("agent", timestep.groups["agent"].observation)
    assert rows.shape == (3, 1, made.inputs.width("agent"))
    generator = torch.Generator().manual_seed(0)
    before = torch.ones(3, dtype=torch.float64) * single.unwrapped.params.initial_cash
    traded = False
    for _ in range(12):
        actions = random_actions(single.groups, timestep, generator)
        timestep = single.step(actions)
        below = apart.unwrapped.step({"symbols": actions["agent"][:, 0]})
        assert torch.equal(timestep.team_reward, below.team_reward)
        agent, equity = timestep.groups["agent"], timestep.info["equity"]
        assert torch.equal(agent.observation["position"][:, 0], below.groups["symbols"].observation["position"])
        scale = single.unwrapped.params.reward_scale
        assert torch.allclose(agent.reward[:, 0].double(), scale * (equity / before).log(), atol=1e-5)
        before, traded = equity, traded or bool((timestep.info["turnover"] > 0).any())
    assert traded


def job_of(env: str, algo: str, overrides: dict[str, object], *, engine: str) -> Job:
    return Job(
        algo=algo,
        env=env,
        env_options={},
        engine=engine,
        workers=1,
        settings=choose(algo, env, overrides).as_dict(),
        seed=0,
        timesteps=200,
        evaluate_every=200,
        test_episodes=4,
        test_seed=0,
        device="cpu",
        threads=1,
    )


def test_episode_metrics_are_those_of_the_account(root: Path) -> None:
    made = scenario(root, "market/portfolio", {"episode": 12}, "cpu")
    cash = made.test(2, 0).params.initial_cash
    played = greedy_episodes(made.test(2, 0), made.baselines["random"](made.test(2, 0).groups, 0), made.metrics)
    again, policy = made.test(2, 0), made.baselines["random"](made.test(2, 0).groups, 0)
    timestep, sums, deepest = again.reset(), dict.fromkeys(("turnover", "costs", "trades"), 0.0), 0.0
    while not bool(timestep.done.any()):
        actions, _ = policy.act(timestep, {}, None)
        timestep = again.step(actions)
        ledger = again.ledger
        sums["turnover"] += float(timestep.info["turnover"][0])
        sums["costs"] += float((ledger.commission + ledger.slippage).sum(-1)[0] + ledger.borrow.sum(-1)[0]) / cash
        sums["trades"] += float((ledger.shares[0] != 0.0).sum())
        deepest = max(deepest, float((1.0 - again.book.equity / again.book.peak)[0, 0]))
    assert min(*sums.values(), deepest) > 0.0
    found = {name: float(values[0]) for name, values in played.metrics.items()}
    wanted = {"net_return": float(again.book.equity[0, 0]) / cash - 1.0, "drawdown": deepest, **sums}
    assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", ["market/portfolio", "market/accounts", "market/single"])
def test_holding_earns_nothing_and_costs_nothing(root: Path, name: str) -> None:
    made = scenario(root, name, {"episode": 12}, "cpu")
    played = greedy_episodes(made.test(3, 0), made.baselines["hold"](made.test(3, 0).groups, 0), made.metrics)
    for figure in ("turnover", "costs", "trades", "drawdown"):
        assert played.metrics[figure].tolist() == [0.0] * 3
