"""dvc.yaml is the only list of stages and names all the code a stage runs; imports run downwards."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from marl_pipeline.pipeline import dag
from marl_pipeline.pipeline.code_dependencies import INFRASTRUCTURE, code_of_stages, with_code
from marl_pipeline.strategies import resolve
from marl_pipeline.strategies.kind import Kind, kind

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def stages() -> tuple[dag.Stage, ...]:
    return dag.read(ROOT)


def module_of(stage: dag.Stage) -> str:
    return stage.cmd.split()[2]


def test_dvc_yaml_names_the_code_that_each_stage_reaches_and_no_other() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert with_code(text, code_of_stages(ROOT)) == text, "run `make dependencies`"


LOADED = """
import importlib, json, sys

loaded = {}
for stage in sys.argv[1:]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "marl_pipeline"]:
        del sys.modules[name]
    importlib.import_module(f"marl_pipeline.stages.{stage}")
    loaded[stage] = [name for name in sys.modules if name.partition(".")[0] == "marl_pipeline"]
print(json.dumps(loaded))
"""


def test_every_module_that_a_stage_runs_is_a_dependency() -> None:
    """By a second road: what Python has loaded after importing a stage, without the import graph."""
    code = code_of_stages(ROOT)
    done = subprocess.run([sys.executable, "-c", LOADED, *code], cwd=ROOT, capture_output=True, text=True, check=True)
    for stage, modules in json.loads(done.stdout).items():
        assert len(modules) > 5
        for module in set(modules) - INFRASTRUCTURE:
            path = Path(*module.split("."))
            file = path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")
            assert str(file) in code[stage] or not (ROOT / file).stat().st_size, f"{stage} runs {file}"


def test_every_stage_is_one_module_with_one_entry_point(stages: tuple[dag.Stage, ...]) -> None:
    for stage in stages:
        assert module_of(stage) == f"marl_pipeline.stages.{stage.group}"
        text = (ROOT / Path(*module_of(stage).split(".")).with_suffix(".py")).read_text()
        assert re.search(r"^def run\(", text, re.MULTILINE)
        assert text.rstrip().endswith('if __name__ == "__main__":\n    main(run)')


def test_no_second_list_of_stages_exists(stages: tuple[dag.Stage, ...]) -> None:
    """No other file knows the stages: three or more of their names quoted in one would be a second list."""
    groups = {stage.group for stage in stages}
    for file in [*(ROOT / "flows").rglob("*.py"), *(ROOT / "marl_pipeline").glob("*.py"), ROOT / "Makefile"]:
        if file.name == "config.py":  # sections of params.yaml bear the names of the stages
            continue
        named = {name for name in groups if re.search(rf"[\"']{name}(@[^\"']*)?[\"']", file.read_text())}
        assert len(named) < 3, f"{file.relative_to(ROOT)} names {sorted(named)}"


def test_outputs_are_where_the_contract_says(stages: tuple[dag.Stage, ...]) -> None:
    outs = {out for stage in stages for out in stage.outs}
    assert {
        "data/validation_report.json",
        "data/training_data_rl",
        "models/sl_checkpoints",
        "data/precomputed/sl_signals",
        "models/encoder",
        "reports/rl_validation_summary.json",
        "reports/rl_validation_summary.md",
        "reports/rl_validation_summary.html",
        "reports/trades.parquet",
        "reports/corporate_events.parquet",
        "reports/equity.parquet",
    } <= outs


def test_imports_run_downwards_only() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def nodes() -> list[tuple[Path, ast.AST]]:
    """Every node of the syntax of the package and the flows, with the file that it is in."""
    files = sorted(path for folder in ("marl_pipeline", "flows") for path in (ROOT / folder).rglob("*.py"))
    return [(path, node) for path in files for node in ast.walk(ast.parse(path.read_text()))]


def test_every_module_that_a_string_names_is_there() -> None:
    name = re.compile(r"(marl_pipeline|flows)(\.\w+)+")
    named = {
        node.value: path
        for path, node in nodes()
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and name.fullmatch(node.value)
    }
    assert {resolve.HIERARCHY, resolve.LEARNED, resolve.RULE, "marl_pipeline.agents.registry"} <= set(named)
    assert [f"{path}: {module}" for module, path in named.items() if find_spec(module) is None] == []


def test_every_function_that_is_taken_from_a_module_named_by_a_string_is_there() -> None:
    taken = [
        (node.value.args[0].value, node.attr)
        for _, node in nodes()
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func).endswith("import_module")
        and isinstance(node.value.args[0], ast.Constant)
    ]
    assert ("marl_pipeline.agents.registry", "build") in taken
    for module, name in taken:
        assert callable(getattr(importlib.import_module(module), name)), f"{module}.{name}"


@pytest.mark.parametrize("module", [resolve.HIERARCHY, resolve.LEARNED, resolve.RULE])
def test_every_kind_of_strategy_has_the_functions_of_one(module: str) -> None:
    for name in ("learn", "trade"):
        wanted = list(inspect.signature(getattr(Kind, name)).parameters)[1:]
        assert list(inspect.signature(getattr(kind(module), name)).parameters) == wanted, f"{module}.{name}"


def test_entry_points_that_are_written_in_files_are_functions() -> None:
    script = re.search(r'^marl = "([\w.]+):(\w+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    flow = re.search(r"entrypoint: ([\w/]+)\.py:(\w+)", (ROOT / "prefect.yaml").read_text())
    assert script is not None
    assert flow is not None
    assert callable(getattr(importlib.import_module(script[1]), script[2]))
    names = [node.name for node in ast.parse((ROOT / f"{flow[1]}.py").read_text()).body if hasattr(node, "name")]
    assert flow[2] in names


def test_the_features_of_ones_own_are_a_dependency_of_the_data_set() -> None:
    stage = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]["build_features"]
    assert "${build_features.custom}" in stage["deps"]
