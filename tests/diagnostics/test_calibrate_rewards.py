"""The search for coefficients: what it looks at, what it leaves behind, and that an interruption changes nothing."""

from __future__ import annotations

import fcntl
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marl_pipeline.config import Params
from marl_pipeline.data.windows import split
from marl_pipeline.diagnostics import calibrate_rewards
from marl_pipeline.diagnostics.calibrate_rewards import STUDIES, Calibration, calibrate, calibration_table, study_key
from marl_pipeline.errors import UserError
from marl_pipeline.pipeline.tracking import EXPERIMENT, Shipper, tracking_uri
from marl_pipeline.store.trials import TRIALS, read_trials
from tests.data.market_panels import dataset_of, random_panel
from tests.stages.prepared import BARS, prepared, smoke_params

SEARCH = [
    "calibrate_rewards.ranges.weights.cost=[1.0, 20.0]",
    "calibrate_rewards.seeds=[0, 3]",
]


def params_with(*changes: str) -> Params:
    return smoke_params(*SEARCH, *changes)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(calibrate_rewards, "ship_unless_shipped", lambda root: None)
    return prepared(tmp_path / "first")


def scores(found: Calibration) -> list[float]:
    return [trial.net_growth for trial in found.trials]


def test_the_first_trial_plays_what_params_say_and_every_trial_is_counted(root: Path) -> None:
    params = params_with()
    found = calibrate(root, params, trials=3)
    assert len(found.trials) == 3
    own = params.market.guide.coefficients()
    assert found.trials[0].coefficients == {name: own[name] for name in params.calibrate_rewards.searched()}
    assert len(set(scores(found))) > 1
    assert found.best.net_growth == max(scores(found))
    assert all(np.mean(trial.by_seed) == pytest.approx(trial.net_growth) for trial in found.trials)
    lines = read_trials(root / TRIALS)
    assert [(line["study"], line["trial"]) for line in lines] == [(found.study, number) for number in range(3)]
    assert [line["validation_net_growth"] for line in lines] == scores(found)
    overridden = params_with(*found.overrides())
    best = found.best.coefficients
    assert overridden.market.guide.coefficients() == pytest.approx(own | dict(best), rel=1e-5)
    table = calibration_table(found)
    assert len(table.rows) == 2 + len(best)


def test_a_search_goes_on_as_if_it_had_not_been_interrupted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = params_with()
    whole = calibrate(prepared(root.parent / "second"), params, trials=4)
    real, played = calibrate_rewards.net_growth, []

    def interrupted(*arguments: Any) -> float:
        played.append(1)
        if len(played) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(calibrate_rewards, "net_growth", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibrate(root, params, trials=4)  # in the second seed of the second trial
    assert len(read_trials(root / TRIALS)) == 1
    monkeypatch.setattr(calibrate_rewards, "net_growth", real)
    assert calibrate(root, params, trials=4) == whole
    assert (root / TRIALS).read_text() == (root.parent / "second" / TRIALS).read_text()
    monkeypatch.setattr(calibrate_rewards, "net_growth", None)  # nothing is left to play
    assert calibrate(root, params, trials=4) == whole


def test_a_line_that_was_not_written_is_made_up_for(root: Path) -> None:
    params = params_with()
    calibrate(root, params, trials=2)
    lines = (root / TRIALS).read_text().splitlines(keepends=True)
    (root / TRIALS).write_text('{"sharpe": 0.4}\n' + lines[0])
    calibrate(root, params, trials=2)
    assert (root / TRIALS).read_text() == '{"sharpe": 0.4}\n' + "".join(lines)


def test_the_test_span_is_never_looked_at(root: Path) -> None:
    """Other bars, features and benchmark after the validation span: the same scores, to the bit."""
    params = params_with()
    dataset = dataset_of(random_panel(3, bars=BARS))
    after = split(BARS, params.spans).validation.stop
    rng = np.random.default_rng(9)
    close = dataset.panel.close.copy()
    close[after:] *= np.exp(rng.normal(0.0, 0.2, close[after:].shape))
    features, benchmark = dataset.features.copy(), dataset.benchmark.copy()
    features[after:] = rng.normal(size=features[after:].shape)
    benchmark[after:] *= 3.0
    poisoned = replace(
        dataset, panel=replace(dataset.panel, close=close, open=close), features=features, benchmark=benchmark
    )
    honest = replace(dataset, panel=replace(dataset.panel, open=dataset.panel.close))
    one = calibrate(prepared(root.parent / "honest", honest), params, trials=2)
    other = calibrate(prepared(root.parent / "poisoned", poisoned), params, trials=2)
    assert scores(one) == scores(other)
    assert one.study != other.study


def test_a_grid_is_gone_through_once_each_point(root: Path) -> None:
    params = params_with("calibrate_rewards.grid_points=2", "calibrate_rewards.seeds=[0]")
    ranges = {"weights": {"cost": (1.0, 9.0)}, "hold_winning": (-0.01, 0.0)}
    search = params.calibrate_rewards.model_copy(update={"ranges": ranges})
    found = calibrate(root, params.model_copy(update={"calibrate_rewards": search}), sampler="grid", trials=9)
    points = [tuple(trial.coefficients.values()) for trial in found.trials]
    assert sorted(points) == [(1.0, -0.01), (1.0, 0.0), (9.0, -0.01), (9.0, 0.0)]


def test_what_decides_a_trial_decides_the_study(root: Path) -> None:
    params = params_with()
    key = study_key(root, params, "tpe")
    assert study_key(root, params_with("calibrate_rewards.trials=50"), "tpe") == key
    for change in ("market.guide.memory=0.1", "calibrate_rewards.iterations=2", "spans.embargo=7", "run.threads=2"):
        assert study_key(root, params_with(change), "tpe") != key
    assert study_key(root, params, "grid") != key


def test_mistakes_are_refused_before_anything_runs(root: Path) -> None:
    for change, words in {
        "calibrate_rewards.ranges.weights.cost=[5.0, 1.0]": r"ranges\.weights\.cost must rise",
        "calibrate_rewards.ranges.hold_winning=[0.0, 0.0]": "must rise",
    }.items():
        with pytest.raises(UserError, match=words):
            params_with(change)
    params = params_with()
    for ranges, words in (
        ({"patience": (0.0, 1.0)}, r"market\.guide\.patience: no such coefficient; there are weights\.pnl"),
        ({"weights": {"pnl": (0.0, 1.0)}}, r"market\.guide\.weights\.pnl: Input should be greater than 0"),
    ):
        search = params.calibrate_rewards.model_copy(update={"ranges": ranges})
        with pytest.raises(UserError, match=words):
            calibrate(root, params.model_copy(update={"calibrate_rewards": search}))
    assert not (root / TRIALS).exists()
    key = study_key(root, params, "tpe")
    (root / STUDIES).mkdir(parents=True)
    with (root / STUDIES / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="under way in another process"):
            calibrate(root, params)


@pytest.mark.slow
def test_every_trial_arrives_in_mlflow(root: Path) -> None:
    from mlflow import MlflowClient

    found = calibrate(root, params_with(), trials=2)
    Shipper(root).ship()
    client = MlflowClient(tracking_uri=tracking_uri(root))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = sorted(client.search_runs([experiment.experiment_id]), key=lambda run: str(run.info.run_name))
    assert [run.data.metrics["net_growth"] for run in runs] == scores(found)
    assert {run.data.tags["reward_version"] for run in runs} == {"guide_v3_2"}
    assert {run.data.tags["study"] for run in runs} == {found.study}
    costs = [float(run.data.params["market.guide.weights.cost"]) for run in runs]
    assert costs == [trial.coefficients["weights.cost"] for trial in found.trials]
