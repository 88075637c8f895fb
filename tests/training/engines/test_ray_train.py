"""Ray Train with two CPU workers does what two processes of a group do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from marl_pipeline.checkpoint import FileCheckpointer
from marl_pipeline.errors import UserError
from marl_pipeline.training.engines import ray_train
from tests.training.engines.private_ray import private_ray
from tests.training.engines.processes import Pair
from tests.training.engines.test_data_parallel import ITERATION_STEPS, share_of, task

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    with private_ray(cpus=2):
        yield


def test_two_workers_are_a_pair_of_the_group_and_tell_their_progress_here(tmp_path: Path) -> None:
    reported: list[int] = []

    def on_step(label: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        reported.append(step)

    trained = ray_train.train(replace(task(tmp_path / "checkpoint", 4 * ITERATION_STEPS), on_step=on_step))
    assert reported == [ITERATION_STEPS, 2 * ITERATION_STEPS, 3 * ITERATION_STEPS, 4 * ITERATION_STEPS]
    with Pair(tmp_path / "meeting") as together:
        pair = together(share_of, None, 4)[0]
    assert trained.run.evaluations == pair.run.evaluations
    for name, tensor in pair.weights.items():
        assert torch.equal(trained.weights[name], tensor)


def test_an_error_of_the_user_comes_back_as_one(tmp_path: Path) -> None:
    FileCheckpointer(tmp_path).save({"steps": 0, "evaluations": [], "metrics": {}, "algorithm": [{}, {}, {}]})
    with pytest.raises(UserError, match="3 workers"):
        ray_train.train(task(tmp_path, ITERATION_STEPS))
