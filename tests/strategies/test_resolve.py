"""Strategies of params.yaml are checked before anything runs, and an edit of one algorithm touches that one alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from marl_pipeline.config import Params, Strategy, parse_params
from marl_pipeline.errors import UserError
from marl_pipeline.pipeline.harness import StageContext
from marl_pipeline.stages import strategies as stage
from marl_pipeline.store.paths import specification_file
from marl_pipeline.strategies import resolve as resolving
from marl_pipeline.strategies.kind import PHASES, TRADING
from marl_pipeline.strategies.resolve import resolve
from marl_pipeline.strategies.specification import load_specification
from tests.stages.prepared import smoke_params

GIVEN = {
    "hierarchy": {"kind": "hierarchy"},
    "symbols": {"kind": "hierarchy", "master": "none"},
    "qmix": {"kind": "algorithm", "algo": "qmix", "settings": {"gamma": 0.9}},
    "mappo": {"kind": "algorithm", "algo": "mappo"},
    "single_agent": {"kind": "algorithm", "algo": "ppo", "engine": "sb3"},
}


def params_with(strategies: dict[str, Any]) -> Params:
    values = smoke_params().model_dump(mode="json")
    values["strategies"] = {"hierarchy": {"kind": "hierarchy"}} | strategies
    return parse_params(values, "the test")


def strategies(given: dict[str, Any] = GIVEN) -> dict[str, Strategy]:
    return dict(params_with(given).strategies)


def changed(monkeypatch: pytest.MonkeyPatch, path: str) -> set[str]:
    """The strategies whose specifications change when a file of the package is edited."""
    before = resolve(strategies())
    plain = Path.read_bytes

    def edited(self: Path) -> bytes:
        return plain(self) + (b"\n# edited" if str(self).endswith(path) else b"")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", edited)
        after = resolve(strategies())
    return {name for name in before if before[name] != after[name]}


def test_an_edit_of_an_algorithm_touches_the_strategies_that_run_it_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert changed(monkeypatch, "algos/qmix.py") == {"qmix"}
    assert changed(monkeypatch, "engines/sb3.py") == {"single_agent"}
    assert changed(monkeypatch, "training/hierarchy.py") == {"hierarchy", "symbols"}
    assert changed(monkeypatch, "envs/trading/env.py") == set(GIVEN)
    assert changed(monkeypatch, "algos/maddpg.py") == set()


def test_settings_are_complete_and_where_they_come_from_does_not_count() -> None:
    options = resolve(strategies())["qmix"][PHASES[0]].options
    assert options["settings"]["gamma"] == 0.9
    assert options["settings"]["envs"] > 0, "the preset's"
    assert options["environment"] == "market/portfolio"
    assert resolve(strategies())["single_agent"][PHASES[0]].options["environment"] == "market/single"


def test_a_strategy_without_a_phase_does_nothing_in_it() -> None:
    found = resolve(strategies())
    acting = {name: [stage for stage, one in stages.items() if one.acts] for name, stages in found.items()}
    everything = [*PHASES, TRADING]
    assert acting["hierarchy"] == everything
    assert acting["symbols"] == ["train_symbol_agents", "fine_tune", TRADING]
    assert acting["qmix"] == ["train_symbol_agents", TRADING]
    assert found["qmix"]["train_master"].code == "", "an edit does not run it again either"


def test_an_override_of_a_later_phase_leaves_the_earlier_ones_alone() -> None:
    plain = {"kind": "hierarchy"}
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"walk_forward": {"tune_iterations": 0}}, [TRADING]),
        ({"fine_tune": {"iterations": 3}}, ["fine_tune", TRADING]),
        ({"train_master": {"iterations": 3}}, ["train_master", "fine_tune", TRADING]),
        ({"train_master": {"directives": {"decide_every": 2}}}, [*PHASES, TRADING]),
        ({"market": {"reward": "guide_v3_2"}}, [*PHASES, TRADING]),
    ]
    for overrides, expected in cases:
        found = resolve(strategies({"a": plain, "b": {**plain, "overrides": overrides}}))
        assert [stage for stage in found["a"] if found["a"][stage] != found["b"][stage]] == expected, overrides


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ({"kind": "algorithm", "algo": "qmx"}, r"^strategies\.x: algorithm 'qmx' is not known; did you mean 'qmix'\?$"),
        ({"kind": "algorithm", "algo": "qmix", "settings": {"gama": 1}}, r"^strategies\.x: settings of qmix: unknown"),
        ({"kind": "algorithm", "algo": "qmix", "timesteps": 1}, r"^strategies\.x: 1 timesteps end before learning"),
        ({"kind": "algorithm", "algo": "qmix", "engine": "jax"}, r"strategies\.x\.engine': .*'sb3' \(found 'jax'\)"),
        ({"kind": "algorithm", "algo": "qmix", "timestep": 9}, r"'strategies\.x\.timestep'; did you mean 'timesteps'"),
        (
            {"kind": "rule", "rule": "benchmark"},
            r"^strategies\.x: rule 'benchmark' holds the benchmark, which is none",
        ),
        ({"kind": "rl"}, r"'strategies\.x\.kind': choose hierarchy, algorithm, rule \(found 'rl'\)"),
        ({"kind": "hierarchy", "overrides": {"market": {"slippage_bps": 0}}}, r"slippage_bps is the same for all"),
        ({"kind": "hierarchy", "overrides": {"market": {"limits": {}}}}, r"limits is the same for all strategies"),
        (
            {"kind": "hierarchy", "overrides": {"fine_tune": {"iteration": 1}}},
            r"fine_tune: .*mean 'iterations'",
        ),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(strategy: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as raised:
        resolve(strategies({"x": strategy}))
    assert "\n" not in str(raised.value)


def test_a_name_must_be_fit_for_a_file_and_the_primary_one_must_be_there() -> None:
    with pytest.raises(UserError, match=r"'strategies\.a/b': a strategy's name is part of file names"):
        params_with({"a/b": {"kind": "hierarchy"}})
    values = smoke_params().model_dump(mode="json")
    values["strategies"] = {"qmix": GIVEN["qmix"]}
    with pytest.raises(UserError, match=r"'report\.primary': no such strategy: hierarchy \(known: qmix\)"):
        parse_params(values, "the test")


def test_the_stage_writes_one_file_for_each_stage_and_the_same_bytes_twice(tmp_path: Path) -> None:
    params = params_with(GIVEN)
    for name in ("one", "two"):
        stage.run(StageContext(params, root=tmp_path / name))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.json"))
    assert files == sorted(specification_file(name, stage) for name in GIVEN for stage in (*PHASES, TRADING))
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert load_specification(tmp_path / "one", "qmix", TRADING) == resolve(strategies())["qmix"][TRADING]
    (tmp_path / "one" / specification_file("qmix", TRADING)).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        load_specification(tmp_path / "one", "qmix", TRADING)
    with pytest.raises(UserError, match="run the stage strategies first"):
        load_specification(tmp_path / "three", "qmix", TRADING)


def test_algorithms_and_engines_are_imported_by_name_alone() -> None:
    graph = resolving.import_graph()
    seen = resolving.files_of(graph, resolving.LEARNED, resolving.ROOT)
    assert "marl_pipeline/envs/trading/env.py" in seen
    assert not {f"marl_pipeline/algos/{name}.py" for name in ("qmix", "maddpg", "idqn", "registry")} & set(seen)
    assert "marl_pipeline/training/engines/sb3.py" not in seen
