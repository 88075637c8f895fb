"""dvc.yaml is the only list of stages and names all the code a stage runs; imports run downwards."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from marl_pipeline.stages import dag

ROOT = Path(__file__).parents[1]

INFRASTRUCTURE = {
    "marl_pipeline",
    "marl_pipeline.stages",
    "marl_pipeline.stages.store",
    "marl_pipeline.stages.harness",
    "marl_pipeline.stages.dag",
    "marl_pipeline.stages.terminal",
    "marl_pipeline.tracking",
    "marl_pipeline.config",
    "marl_pipeline.checkpoint",
    "marl_pipeline.progress",
    "marl_pipeline.errors",
}
"""What carries a stage without changing its result: errors, progress, records, and the typed view of parameters
whose values DVC tracks itself. A change here must not retrain everything."""


@pytest.fixture(scope="module")
def stages() -> tuple[dag.Stage, ...]:
    return dag.read(ROOT)


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("marl_pipeline", "flows", cache_dir=None)


def reached(imports: grimp.ImportGraph, module: str) -> set[str]:
    """Modules that run when `module` does, not looking through the infrastructure."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in found and name not in INFRASTRUCTURE:
            found.add(name)
            waiting += imports.find_modules_directly_imported_by(name)
    return found


def file_of(module: str) -> str:
    path = Path(*module.split("."))
    return str(path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py"))


def is_covered(file: str, deps: tuple[str, ...]) -> bool:
    return any(file == dep or file.startswith(dep + "/") for dep in deps)


def module_of(stage: dag.Stage) -> str:
    return stage.cmd.split()[2]


def test_dvc_yaml_names_all_the_code_a_stage_reaches(stages: tuple[dag.Stage, ...], imports: grimp.ImportGraph) -> None:
    missing = {}
    for stage in stages:
        files = {file_of(module) for module in reached(imports, module_of(stage))}
        files = {file for file in files if (ROOT / file).stat().st_size > 0}  # an empty __init__ does nothing
        lacking = sorted(file for file in files if not is_covered(file, stage.deps))
        if lacking:
            missing[stage.group] = lacking
    assert not missing, f"add these to `deps` in dvc.yaml: {missing}"


def test_dvc_yaml_names_no_code_that_is_not_there_or_not_reached(
    stages: tuple[dag.Stage, ...], imports: grimp.ImportGraph
) -> None:
    idle = {}
    for stage in stages:
        files = {file_of(module) for module in reached(imports, module_of(stage))}
        code = [dep for dep in stage.deps if dep.startswith("marl_pipeline")]
        lazy = [dep for dep in code if not any(is_covered(file, (dep,)) for file in files)]
        if lazy:
            idle[stage.group] = lazy
    assert not idle, f"remove these from `deps` in dvc.yaml: {idle}"


def test_every_stage_is_one_module_with_one_entry_point(stages: tuple[dag.Stage, ...]) -> None:
    for stage in stages:
        assert module_of(stage) == f"marl_pipeline.stages.{stage.group}"
        text = (ROOT / file_of(module_of(stage))).read_text()
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
        "reports/equity.parquet",
    } <= outs


def test_imports_run_downwards_only() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
