"""The reference table and the bench of learning: what they count, and what they write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marl_pipeline.bench import learning as learning_bench
from marl_pipeline.bench.reference import Reference
from marl_pipeline.experiments.run import Finished, interval_of
from marl_pipeline.reporting.learning_curves import learning_curve
from marl_pipeline.scenarios.scenario import Published
from marl_pipeline.training.loop import Evaluation

ROOT = Path(__file__).parents[3]


def finished(seed: int, value: float, speed: float | None) -> Finished:
    last = Evaluation(1000, value, 1.0)
    return Finished(
        seed, value, interval_of(value, 1.0, 512), 1000, (last,), {}, None, speed, Path("runs") / str(seed), False
    )


def test_the_reference_table_holds_iqm_interval_mean_and_what_was_published() -> None:
    runs = [finished(seed, value, 100.0 * seed) for seed, value in enumerate((-30.0, -32.0, -34.0, -36.0, -90.0), 1)]
    curve = learning_curve({run.seed: (np.array([1000]), np.array([run.test_return])) for run in runs})
    known = {"qmix": Published(-25.8, 2_000_000, "a paper")}
    table = Reference("mpe/simple_spread", 1000, {"random": -79.42}, known, -10.0, {"qmix": runs}, {"qmix": curve})
    row, *below = table.markdown().splitlines()[-3:]
    assert below == ["| random |  |  | -79.4 |  |  |", "| optimum |  |  | -10.0 |  |  |"]
    assert (table.as_json()["optimum"], table.as_json()["baselines"]) == (-10.0, {"random": -79.42})
    assert row.startswith("| qmix | -34.0 | ")
    assert row.endswith(" | -44.4 | -25.8 (2M) | 300 |")
    found = table.as_json()["algorithms"][0]
    assert found["interval"][0] < found["iqm"] < found["interval"][1]
    assert found["published"] == {"return": -25.8, "timesteps": 2_000_000}
    untimed = Reference("elsewhere", 1000, {}, {}, None, {"qmix": [finished(0, -1.0, None)]}, {"qmix": curve})
    assert untimed.markdown().splitlines()[-1].endswith(" | -1.0 |  |  |")


def test_the_interval_of_a_mean_is_its_standard_error_times_the_normal_quantile() -> None:
    low, high = interval_of(10.0, 2.0, 400)
    assert (low, high) == pytest.approx((10.0 - 0.196, 10.0 + 0.196), abs=1e-4)


def test_the_peer_is_given_the_sizes_of_the_preset() -> None:
    mappo, qmix = learning_bench.peer_settings("mappo"), learning_bench.peer_settings("qmix")
    assert mappo["frames"] == mappo["envs"] * 25
    assert mappo["hidden"] == [64, 64]
    assert qmix["frames"] % qmix["envs"] == 0
    assert qmix["batch"] > 0


def test_a_peer_that_is_not_there_is_reported_and_does_not_end_the_bench() -> None:
    row = learning_bench.peer_speed(ROOT, Path("/nowhere/python"), "qmix", own_settings=False, threads=1)
    assert isinstance(row, learning_bench.Absent)
    assert "/nowhere/python" in row.reason
    assert learning_bench.as_json([row])["absent"][0]["system"] == "BenchMARL, our settings"


def test_speed_and_arithmetic_are_measured_and_printed() -> None:
    speed, arithmetic = learning_bench.speed(ROOT, "mappo", seconds=0.1, threads=1, device="cpu")
    assert isinstance(speed, learning_bench.Speed)
    assert isinstance(arithmetic, learning_bench.Arithmetic)
    assert speed.steps_per_s > 0
    assert 1e6 < arithmetic.flops_per_step < 3e6, "ten epochs of two networks of 64 x 64"
    assert 0 < arithmetic.flops_per_s < arithmetic.peak_flops_per_s
    assert "MFLOP a step" in learning_bench.words(arithmetic)
    assert learning_bench.table([speed, arithmetic]).row_count == 2
    assert learning_bench.as_json([speed, arithmetic])["arithmetic"][0]["algo"] == "mappo"
