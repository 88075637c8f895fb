"""Every algorithm on two workers: the gradients of one process with all rows, and equal weights throughout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marl_pipeline.agents import registry
from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.algos.common.optimizer_step import OptimizerSettings, OptimizerStep
from marl_pipeline.algos.common.rollout import Experience
from marl_pipeline.algos.on_policy import OnPolicy
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction
from marl_pipeline.training.engines.data_parallel import ProcessGroup, train_share
from marl_pipeline.training.engines.task import Build
from tests.algos.learners import settings
from tests.algos.wild import Wild
from tests.training.engines.processes import Pair
from tests.training.engines.test_data_parallel import task

HORIZON = 12


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("group") / "meeting") as pair:
        yield pair


def collected(algorithm: str, reduction: Reduction) -> tuple[OnPolicy, dict[str, Experience]]:
    """A learner over environments of its own, and what it saw in them: other numbers of live rows on each worker."""
    environment = Wild(6, seed=reduction.rank)
    chosen = settings(algorithm, horizon=HORIZON, minibatches=1, target_kl=0.05, network={"normalise_inputs": False})
    inputs = DenseInputs(environment.groups, reference_fields=("index",))
    learner = OnPolicy(environment, inputs, chosen, seed=3, timesteps=1000, reduction=reduction)
    return learner, learner._collector.collect(HORIZON)


def learned(learner: OnPolicy, experience: dict[str, Experience]) -> dict[str, Any]:
    """Figures of an update of every group, the last gradients and the weights after it."""
    found: dict[str, Any] = {}
    for group, ppo in learner.learners.items():
        found |= {f"{group}/{name}": value for name, value in ppo.update(experience[group], torch.Generator()).items()}
        for name, parameter in ppo.policy.module.named_parameters():
            found |= {f"{group}/{name}": parameter.detach(), f"{group}/gradient/{name}": parameter.grad}
        found |= {f"{group}/{name}": buffer for name, buffer in ppo.policy.module.named_buffers()}
    return found


def learned_together(group: ProcessGroup, algorithm: str) -> dict[str, Any]:
    return learned(*collected(algorithm, group))


class Second(Reduction):
    """Draws as the second worker does."""

    rank = 1


def side_by_side(first: Experience, second: Experience) -> Experience:
    joined: dict[str, Any] = {
        field.name: torch.cat(
            [getattr(first, field.name), getattr(second, field.name)], int(field.name != "last_value")
        )
        for field in fields(Experience)
        if field.name != "inputs"
    }
    inputs = {key: torch.cat([tensor, second.inputs[key]], 1) for key, tensor in first.inputs.items()}
    return Experience(inputs=inputs, **joined)


@pytest.mark.parametrize("algorithm", ["ippo", "mappo"])
def test_two_workers_learn_from_a_rollout_as_one_with_the_doubled_batch(together: Pair, algorithm: str) -> None:
    alone, first = collected(algorithm, NO_REDUCTION)
    _, second = collected(algorithm, Second())
    expected = learned(alone, {group: side_by_side(first[group], second[group]) for group in first})
    assert any(name.endswith("norm.first") for name in expected)
    for worker in together(learned_together, algorithm):
        assert worker.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(torch.as_tensor(worker[name]), torch.as_tensor(value), rtol=1e-4, atol=1e-5)


def descended(reduction: Reduction, x: Tensor, y: Tensor) -> Tensor:
    """Weights and gradient norms of three steps on a mean squared error."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    rate = {"kind": "constant", "start": 0.1, "end": 0.1, "share": 1.0}
    chosen = {"kind": "adam", "learning_rate": rate, "epsilon": 1e-8, "max_grad_norm": 0.5}
    optimizer = OptimizerStep(model.parameters(), OptimizerSettings.model_validate(chosen), reduction)
    norms = [optimizer.step((model(x).squeeze(-1) - y).square().mean(), 0.0, torch.tensor(len(x))) for _ in range(3)]
    return torch.cat([torch.stack(norms), *(parameter.detach().flatten() for parameter in model.parameters())])


def rows(rank: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(4 + 3 * rank, 3, generator=generator), torch.randn(4 + 3 * rank, generator=generator)


def descended_together(group: ProcessGroup) -> Tensor:
    return descended(group, *rows(group.rank))


def test_two_workers_descend_as_one_with_all_rows(together: Pair) -> None:
    expected = descended(NO_REDUCTION, *(torch.cat(both) for both in zip(rows(0), rows(1), strict=True)))
    for worker in together(descended_together):
        torch.testing.assert_close(worker, expected, rtol=1e-5, atol=1e-6)


REPLAY = {"batch": 16, "learning_starts": 64, "buffer_size": 512}


def share_of_off_policy(group: ProcessGroup, algorithm: str) -> Any:
    """A run of which most iterations learn; its evaluation finds workers that drift apart."""
    chosen = registry.choose(algorithm, {**REPLAY, "envs": 8}).settings
    build: Build = registry.registered(algorithm).algorithm
    return train_share(replace(task(None, 512), settings=chosen, build=build), group)


@pytest.mark.parametrize("algorithm", ["idqn", "qmix", "maddpg"])
def test_off_policy_workers_stay_equal(together: Pair, algorithm: str) -> None:
    first, second = together(share_of_off_policy, algorithm)
    assert first.run.steps == 512
    assert first.run.evaluations == second.run.evaluations
    for name, tensor in first.weights.items():
        assert torch.equal(tensor, second.weights[name])
