from __future__ import annotations

import dataclasses

import pytest

from marl_pipeline.evaluation.gates import LITTLE_INVESTED, Evidence, apply_gates, number, percent, remarks
from marl_pipeline.evaluation.metrics import Metrics
from marl_pipeline.evaluation.statistics import Interval
from tests.evaluation.evaluation_samples import params

GATES = params().report.gates
METRICS = Metrics(**dict.fromkeys((field.name for field in dataclasses.fields(Metrics)), 0.1))


def evidence_of(**changes: object) -> Evidence:
    good = dataclasses.replace(METRICS, sharpe=1.5, total_return=0.4, max_drawdown=0.1, exposure=0.8)
    weak = dataclasses.replace(METRICS, sharpe=0.7)
    values = {
        "policy": good,
        "baselines": {"equal_weight": weak, "benchmark": weak, "sl_thresholds": weak},
        "benchmark_name": "SPY",
        "excess": Interval(0.8, 0.2, 1.4, 0.95, 0.01, 0.3, 5.0),
        "detectable": 0.84,
        "deflated": 0.99,
        "trials": 3,
        "seed_excess": [0.7, 0.9],
        "sessions": 500,
    }
    return Evidence(**(values | changes))  # type: ignore[arg-type]


def test_go_when_every_gate_passes_and_every_gate_says_why() -> None:
    decision, reasons, gates = apply_gates(evidence_of(), GATES)
    assert decision == "GO"
    assert reasons == [gate.words for gate in gates]
    assert all(gate.passed for gate in gates)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("net_return", {"policy": dataclasses.replace(METRICS, sharpe=1.5, total_return=0.0, max_drawdown=0.1)}),
        ("excess_sharpe", {"excess": Interval(-0.1, 0.01, 0.2, 0.95, 0.6, 0.1, 1.0)}),
        ("excess_sharpe_lower_bound", {"excess": Interval(0.8, -0.1, 1.4, 0.95, 0.1, 0.3, 5.0)}),
        (
            "beats_benchmark",
            {
                "baselines": {
                    "equal_weight": METRICS,
                    "benchmark": dataclasses.replace(METRICS, sharpe=1.5),
                    "sl_thresholds": METRICS,
                }
            },
        ),
        ("max_drawdown", {"policy": dataclasses.replace(METRICS, sharpe=1.5, max_drawdown=0.2501)}),
        ("deflated_sharpe", {"deflated": 0.949}),
        ("seeds_positive", {"seed_excess": [0.7, -0.1]}),
        ("enough_data", {"sessions": 251}),
    ],
)
def test_each_gate_alone_can_say_no(name: str, changes: dict[str, object]) -> None:
    decision, reasons, gates = apply_gates(evidence_of(**changes), GATES)
    assert decision == "NO-GO"
    assert [gate.name for gate in gates if not gate.passed] == [name]
    assert reasons == [gate.words for gate in gates if gate.name == name]


def test_the_words_follow_the_outcome() -> None:
    unclear = apply_gates(evidence_of(excess=Interval(0.1, -0.3, 0.5, 0.95, 0.3, 0.2, 4.0)), GATES)[1]
    assert "cannot be distinguished from luck" in unclear[0]
    assert "0.84" in unclear[0]
    worse = apply_gates(evidence_of(excess=Interval(-0.4, -0.6, -0.2, 0.95, 0.99, 0.1, 4.0)), GATES)[1]
    assert any("bad luck" in reason for reason in worse)
    lost = apply_gates(evidence_of(policy=dataclasses.replace(METRICS, sharpe=-1.0, total_return=-0.25)), GATES)[1]
    assert any("lost 25.0%" in reason for reason in lost)


def test_an_idle_policy_and_stronger_signals_are_remarked_on() -> None:
    idle = dataclasses.replace(METRICS, sharpe=0.0, turnover_per_day=0.0)
    lines = remarks(evidence_of(policy=idle))
    assert "never traded" in lines[0]
    assert "following the supervised models" in lines[1]
    assert remarks(evidence_of()) == []
    timid = dataclasses.replace(METRICS, sharpe=1.5, exposure=0.03)
    assert "3.0%" in remarks(evidence_of(policy=timid))[0]


def test_figures_are_written_with_a_real_minus() -> None:
    assert percent(-0.1234) == "\u221212.3%"
    assert number(-0.5) == "\u22120.50"


def words_of(name: str, **changes: object) -> tuple[bool, str]:
    gates = {gate.name: gate for gate in apply_gates(evidence_of(**changes), GATES)[2]}
    return gates[name].passed, gates[name].words


def policy(**figures: float) -> Metrics:
    return dataclasses.replace(METRICS, **{"sharpe": 1.5, "total_return": 0.4, "max_drawdown": 0.1} | figures)


def test_exactly_the_limit_is_within_it_and_exactly_the_bar_is_not_above_it() -> None:
    most, least = GATES.max_drawdown, GATES.min_deflated_sharpe
    passed, words = words_of("max_drawdown", policy=policy(max_drawdown=most))
    assert passed
    assert words == f"Its deepest fall from a peak was {percent(most)}, within the {percent(most)} allowed."
    assert "beyond" in words_of("max_drawdown", policy=policy(max_drawdown=most + 1e-6))[1]
    assert words_of("deflated_sharpe", deflated=least)[0]
    assert words_of("enough_data", sessions=GATES.min_test_sessions)[0]
    assert "enough (at" in words_of("enough_data", sessions=GATES.min_test_sessions)[1]
    assert "too few" in words_of("enough_data", sessions=GATES.min_test_sessions - 1)[1]
    passed, words = words_of("excess_sharpe", excess=Interval(GATES.min_excess_sharpe, 0.01, 0.2, 0.95, 0.6, 0.1, 1.0))
    assert not passed
    assert "0.00 below the" in words
    for low, high in ((0.0, 1.0), (-1.0, 0.0)):
        passed, words = words_of("excess_sharpe_lower_bound", excess=Interval(0.8, low, high, 0.95, 0.1, 0.3, 5.0))
        assert not passed
        assert "cannot be distinguished from luck" in words
    assert "the 95% interval" in words
    passed, words = words_of("beats_benchmark", policy=policy(sharpe=0.7))
    assert not passed
    assert "Its Sharpe ratio of 0.70 is not above the 0.70" in words
    assert "1.50 is above the 0.70" in words_of("beats_benchmark")[1]
    assert "lost 0.0%" in words_of("net_return", policy=policy(total_return=0.0))[1]
    assert "earned 40.0%" in words_of("net_return")[1]


def test_a_seed_that_equals_equal_weight_is_not_above_it() -> None:
    passed, words = words_of("seeds_positive", seed_excess=[0.0])
    assert not passed
    assert words.startswith("0 of 1 seed had")
    assert words_of("seeds_positive")[1].startswith("2 of 2 seeds had")
    gates = {gate.name: gate for gate in apply_gates(evidence_of(seed_excess=[0.1, 0.2, -0.3, 0.4]), GATES)[2]}
    assert gates["seeds_positive"].value == 0.75


def test_trials_are_counted_in_words_and_an_edge_asked_for_is_named() -> None:
    assert words_of("deflated_sharpe", trials=1)[1].startswith("Given 1 trial, ")
    assert words_of("deflated_sharpe", trials=2)[1].startswith("Given 2 trials, ")
    assert words_of("excess_sharpe")[1].endswith("in equal weight.")
    asked = GATES.model_copy(update={"min_excess_sharpe": 0.3})
    gates = {gate.name: gate for gate in apply_gates(evidence_of(), asked)[2]}
    assert gates["excess_sharpe"].words.endswith("; 0.30 was asked for.")
    assert gates["excess_sharpe"].passed


def test_a_policy_just_enough_invested_and_as_good_as_its_signals_is_not_remarked_on() -> None:
    assert remarks(evidence_of(policy=policy(sharpe=0.7, exposure=LITTLE_INVESTED))) == []
    assert len(remarks(evidence_of(policy=policy(sharpe=0.69, exposure=LITTLE_INVESTED - 1e-6)))) == 2
