"""The example of docs/environments.md is a whole environment: it conforms, and a learner solves it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from marl_pipeline.algos.common.inputs import DenseInputs
from marl_pipeline.algos.idqn import IDQN, IDQNSettings
from marl_pipeline.envs.conformance import check_environment
from marl_pipeline.envs.sampling import RandomPolicy
from marl_pipeline.evaluation.greedy import greedy_returns
from marl_pipeline.scenarios import make

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the environment, saved in the working directory as the page says."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/environments.md").read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "meeting.py").write_text(blocks[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "meeting", raising=False)
    return "meeting:Meeting"


def test_it_conforms(example: str) -> None:
    check_environment(lambda: make(example, 4, seed=0), steps=60)
    assert make(example, 2, seed=0, places=9).unwrapped.places == 9  # type: ignore[attr-defined]


def test_a_learner_solves_it(example: str) -> None:
    preset = YAML(typ="safe").load((ROOT / "marl_pipeline/algos/presets/idqn.yaml").read_text())["default"]
    few = {"buffer_size": 20_000, "learning_starts": 1_000, "batch": 128}
    environment = make(example, 32, seed=100)
    inputs = DenseInputs(environment.groups)
    learner = IDQN(environment, inputs, IDQNSettings.model_validate(preset | few), seed=100, timesteps=20_000)
    taken = 0
    while taken < 20_000:
        taken += learner.iterate().steps
    test = make(example, 256, seed=7)
    random = greedy_returns(test, RandomPolicy(test.groups, seed=1)).mean().item()
    learned = greedy_returns(test, learner.policy).mean().item()
    assert random < 5.0
    assert learned > 14.0  # of 20; the first steps are spent walking
