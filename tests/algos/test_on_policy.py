"""PPO and MAPPO on a small known environment: they learn, they are deterministic, they resume byte for byte."""

from __future__ import annotations

import pytest
import torch

from marl_pipeline.algos.common.rollout import Collector
from marl_pipeline.algos.mappo import MAPPO
from marl_pipeline.algos.ppo import PPO
from marl_pipeline.checkpoint import FileCheckpointer, NoCheckpoint
from marl_pipeline.config import PPOParams
from marl_pipeline.nn.distributions import masked_log_softmax, sample
from marl_pipeline.progress import silent
from marl_pipeline.training.trainer import train
from tests.algos.toy import Colours, Team

PARAMS = PPOParams(
    envs=16, horizon=16, episode=8, epochs=4, minibatches=2, learning_rate=0.02, gamma=0.9, gae_lambda=0.9, clip=0.2,
    entropy=0.0, value_coefficient=0.5, huber_delta=10.0, max_grad_norm=1.0, target_kl=0.1,
)  # fmt: skip


def run(seed=0, iterations=30, checkpoint=None, on_step=silent, evaluate=None):
    torch.manual_seed(0)
    team = Team(seed)
    learners = {
        "workers": PPO(team.policies["workers"], PARAMS),
        "boss": MAPPO(team.policies["boss"], PARAMS, norm=team.policies["boss"].module["norm"]),
    }
    modules = {name: policy.module for name, policy in team.policies.items()}
    collector = Collector(Colours(16, seed), team, torch.Generator().manual_seed(seed))
    trained = train(
        collector=collector, learners=learners, modules=modules, horizon=16, iterations=iterations,
        generator=torch.Generator().manual_seed(seed), evaluate=evaluate, evaluate_every=5, label="toy",
        on_step=on_step, checkpoint=checkpoint or NoCheckpoint(),
    )  # fmt: skip
    return team, trained, modules


def test_both_groups_learn_their_optimum():
    team, trained, _ = run()
    env = Colours(64, 99)
    timestep, earned = env.reset(), {"workers": 0.0, "boss": 0.0}
    for _ in range(8):
        timestep = env.step({name: d.action for name, d in team.decide(timestep, None).items()})
        for name in earned:
            earned[name] += float(timestep.groups[name].reward.mean()) / 8
    assert earned["workers"] > 0.95
    assert earned["boss"] == 1.0
    _, y = trained.curves.points["workers/reward_per_step"]
    assert y[-1] > y[0] + 0.3


def test_training_changes_every_weight():
    before = {name: [p.clone() for p in m.parameters()] for name, m in run(iterations=0)[2].items()}
    after = {name: list(m.parameters()) for name, m in run(iterations=2)[2].items()}
    for name, weights in before.items():
        for old, new in zip(weights, after[name], strict=True):
            assert not torch.equal(old, new)


def test_same_seed_same_weights_and_another_seed_others():
    first, second, other = (list(run(seed, 3)[2]["workers"].parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


class KilledError(Exception):
    pass


@pytest.mark.parametrize("at", [1, 4, 6])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, at):
    def die(label, step, total, metrics):
        if step == at:
            raise KilledError

    undisturbed = run(iterations=7)
    with pytest.raises(KilledError):
        run(iterations=7, checkpoint=FileCheckpointer(tmp_path), on_step=die)
    resumed = run(iterations=7, checkpoint=FileCheckpointer(tmp_path))
    for name, module in undisturbed[2].items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, resumed[2][name].state_dict()[key]), (name, key)
    assert undisturbed[1].curves.points == resumed[1].curves.points


def test_the_best_evaluated_weights_are_kept():
    scores = iter([0.0, 3.0, 1.0])  # before training, iteration 5, iteration 10
    kept = run(iterations=10, evaluate=lambda: next(scores))
    assert kept[1].best_iteration == 5
    assert kept[1].best_score == 3.0
    five = run(iterations=5)
    for a, b in zip(kept[2]["workers"].parameters(), five[2]["workers"].parameters(), strict=True):
        assert torch.equal(a, b)


def test_masked_actions_are_never_drawn():
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(4096, 5, generator=generator) > 0.5
    mask[:, 2] |= ~mask.any(-1)
    drawn = sample(masked_log_softmax(torch.randn(4096, 5, generator=generator) * 5, mask), generator)
    assert mask.gather(-1, drawn.unsqueeze(-1)).all()


def test_draws_follow_the_probabilities():
    logits = torch.tensor([0.0, 1.0, 2.0]).log_softmax(-1)
    drawn = sample(logits.expand(200_000, 3), torch.Generator().manual_seed(0))
    share = torch.bincount(drawn, minlength=3) / len(drawn)
    assert torch.allclose(share, logits.exp(), atol=5e-3)
