"""Several processes learn what one would learn from all their rows, and survive a kill together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.checkpoint import FileCheckpointer, NoCheckpoint
from marl_pipeline.errors import UserError
from marl_pipeline.evaluation.greedy import greedy_returns
from marl_pipeline.nn.reduction import NO_REDUCTION, Reduction
from marl_pipeline.progress import silent
from marl_pipeline.training.engines.data_parallel import ProcessGroup, train_in_one_process, train_share
from marl_pipeline.training.engines.task import Task, load_policy
from marl_pipeline.training.loop import EpisodeResults
from tests.algos.toy import EPISODE, Colours
from tests.learning import OverSeeds
from tests.training.engines.processes import WORKERS, Pair
from tests.training.engines.reinforce import Reinforce, ReinforceSettings

HORIZON = 2 * EPISODE


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("group") / "meeting") as pair:
        yield pair


def rows(rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and which of them count: another number on each worker."""
    generator = torch.Generator().manual_seed(rank)
    x, y = torch.randn(6, 3, generator=generator), torch.randn(6, generator=generator)
    return x, y, torch.arange(6) < 2 + 3 * rank


def fit(reduction: Reduction, x: Tensor, y: Tensor, live: Tensor) -> dict[str, Any]:
    """Three clipped Adam steps on the mean squared error over live rows."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    gradients, losses = [], []
    for _ in range(3):
        optimizer.zero_grad()
        loss = ((model(x).squeeze(-1) - y).square() * live).sum() / live.sum().clamp(min=1)
        loss.backward()
        reduction.average_gradients(model.parameters(), live.sum())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        losses.append(reduction.mean(loss.detach(), live.sum()))
    return {
        "gradients": torch.stack(gradients),
        "weights": torch.cat([p.detach().flatten() for p in model.parameters()]),
        "loss": torch.stack(losses),
        "moments": torch.stack(reduction.moments(y[live])),
    }


def fit_own(group: ProcessGroup, nobody: bool) -> dict[str, Any]:
    x, y, live = rows(group.rank)
    return fit(group, x, y, live & ~torch.tensor(nobody and group.rank == 1))


@pytest.mark.parametrize("nobody", [False, True], ids=["uneven", "one without live rows"])
def test_two_workers_have_the_gradients_of_one_with_all_rows(together: Pair, nobody: bool) -> None:
    x, y, live = (torch.cat(both) for both in zip(rows(0), rows(1), strict=True))
    if nobody:
        live[6:] = False
    alone = fit(NO_REDUCTION, x, y, live)
    for worker in together(fit_own, nobody):
        for name, expected in alone.items():
            torch.testing.assert_close(worker[name], expected, rtol=1e-5, atol=1e-6)


def shares(group: ProcessGroup) -> tuple[int, int, int]:
    return group.own_seed(7), group.share(6, "environments"), group.rank


def test_workers_draw_for_themselves_and_share_equally(together: Pair) -> None:
    (first, half, rank), (second, other_half, other_rank) = together(shares)
    assert first == 7 == NO_REDUCTION.own_seed(7) != second
    assert (half, other_half, rank, other_rank) == (3, 3, 0, 1)
    with pytest.raises(UserError, match="environments"):
        _three().share(4, "environments")


def _three() -> Reduction:
    reduction = Reduction()
    reduction.workers = 3
    return reduction


def greedy(policy: Any) -> EpisodeResults:
    return EpisodeResults(greedy_returns(Colours(16, 99), policy))


def task(folder: Path | None, timesteps: int, **changes: Any) -> Task:
    """REINFORCE on the toy, 8 environments in all."""
    fields: dict[str, Any] = {
        "algorithm": "reinforce",
        "settings": ReinforceSettings(learning_rate=0.05, horizon=HORIZON),
        "build": Reinforce,
        "make": Colours,
        "inputs": DenseInputs(Colours(1, 0).groups),
        "num_envs": 8,
        "seed": 3,
        "timesteps": timesteps,
        "workers": WORKERS,
        "device": torch.device("cpu"),
        "evaluate": greedy,
        "evaluate_every": 4 * 8 * HORIZON,
        "checkpoint": NoCheckpoint() if folder is None else FileCheckpointer(folder),
        "checkpoint_every": 3 * 8 * HORIZON,
        "label": "toy",
        "on_step": silent,
    }
    return Task(**{**fields, **changes})


ITERATION_STEPS = 8 * HORIZON


def share_of(group: ProcessGroup, folder: Path | None, iterations: int, seed: int = 3) -> Any:
    return train_share(task(folder, iterations * ITERATION_STEPS, seed=seed), group)


def test_workers_share_the_steps_and_end_with_equal_weights(together: Pair) -> None:
    first, second = together(share_of, None, 8)
    alone = train_in_one_process(task(None, 8 * ITERATION_STEPS))
    assert first.run.steps == second.run.steps == alone.run.steps == 8 * ITERATION_STEPS
    assert first.run.evaluations == second.run.evaluations
    for name, tensor in first.weights.items():
        assert torch.equal(tensor, second.weights[name])
        assert not torch.equal(tensor, alone.weights[name])


def test_two_workers_learn_as_well_as_one(together: Pair, over_seeds: OverSeeds) -> None:
    def missing(seed: int) -> dict[str, float]:
        pair = together(share_of, None, 60, seed)[0]
        alone = train_in_one_process(task(None, 60 * ITERATION_STEPS, seed=seed))
        first, last = (pair.run.evaluations[at].mean for at in (0, -1))
        return {"gain": last - first, "behind one worker": alone.run.evaluations[-1].mean - last}

    over_seeds(missing, at_least={"gain": 1.0}, at_most={"behind one worker": 1.0}, seeds=3)


def test_a_resumed_pair_ends_where_an_undisturbed_one_does(together: Pair, tmp_path: Path) -> None:
    together(share_of, tmp_path / "undisturbed", 6)
    together(share_of, tmp_path / "killed", 3)
    together(share_of, tmp_path / "killed", 6)
    undisturbed, resumed = (FileCheckpointer(tmp_path / name).load() for name in ("undisturbed", "killed"))
    for part in ("steps", "algorithm"):
        torch.testing.assert_close(resumed[part], undisturbed[part], rtol=0.0, atol=0.0)


def test_another_number_of_workers_cannot_resume(together: Pair, tmp_path: Path) -> None:
    saved = FileCheckpointer(tmp_path / "state")
    saved.save({"steps": 0, "evaluations": [], "metrics": {}, "algorithm": [{}, {}, {}]})
    first = together(share_of, tmp_path / "state", 2)[0]
    assert isinstance(first, UserError)
    assert "3 workers" in str(first)


class Selfish(Reinforce):
    """Forgets to share its gradients."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.reduction = NO_REDUCTION


def selfish_share(group: ProcessGroup) -> Any:
    return train_share(replace(task(None, 8 * ITERATION_STEPS), build=Selfish), group)


def test_workers_that_drift_apart_are_found_out(together: Pair) -> None:
    for error in together(selfish_share):
        assert isinstance(error, RuntimeError)
        assert "weights differ" in str(error)


def test_its_weights_are_a_policy_of_the_project(together: Pair) -> None:
    trained = together(share_of, None, 4)[0]
    returns = greedy(load_policy(task(None, ITERATION_STEPS), trained.weights)).returns
    assert float(returns.mean()) == trained.run.evaluations[-1].mean
