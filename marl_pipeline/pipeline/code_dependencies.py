"""The code that each stage depends on, written into dvc.yaml from the import graph: module by module.

An edit of a module runs those stages again whose imports reach it, and no others. `make dependencies` writes the
entries; a test compares them with the imports.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

if TYPE_CHECKING:
    from grimp import ImportGraph

CODE = "marl_pipeline/"

INFRASTRUCTURE = frozenset(
    {
        "marl_pipeline",
        "marl_pipeline.stages",
        "marl_pipeline.store",
        "marl_pipeline.pipeline",
        "marl_pipeline.pipeline.compute",
        "marl_pipeline.pipeline.dag",
        "marl_pipeline.pipeline.harness",
        "marl_pipeline.pipeline.terminal",
        "marl_pipeline.pipeline.tracking",
        "marl_pipeline.checkpoint",
        "marl_pipeline.config",
        "marl_pipeline.errors",
        "marl_pipeline.progress",
        "marl_pipeline.yaml_text",
    }
)
"""What carries a stage without changing its result: errors, progress, records, and the typed view of parameters
whose values DVC tracks itself. A change here must not retrain everything."""


def import_graph() -> ImportGraph:
    """All imports of the package, those inside functions and those for type checkers included."""
    import grimp

    return grimp.build_graph("marl_pipeline", cache_dir=None)


def reached(graph: ImportGraph, module: str) -> set[str]:
    """Modules that run when `module` does, not looking through the infrastructure."""
    found, waiting = set[str](), [module]
    while waiting:
        name = waiting.pop()
        if name not in found and name not in INFRASTRUCTURE:
            found.add(name)
            waiting += graph.find_modules_directly_imported_by(name)
            parent = name.rpartition(".")[0]
            if parent:
                waiting.append(parent)  # importing a module runs the packages above it
    return found


def files_of(graph: ImportGraph, module: str, root: Path) -> list[str]:
    """Paths of the modules that `module` reaches, relative to the root; empty files do nothing and are left out."""
    files = {_file(name, root) for name in reached(graph, module)}
    return sorted(file for file in files if (root / file).stat().st_size > 0)


def code_of_stages(root: Path = Path()) -> dict[str, list[str]]:
    """Stage of dvc.yaml -> paths of the code its command runs."""
    graph = import_graph()
    stages: Mapping[str, Mapping[str, str]] = YAML(typ="safe", pure=True).load((root / "dvc.yaml").read_text())[
        "stages"
    ]
    return {name: files_of(graph, stage["cmd"].split()[2], root) for name, stage in stages.items()}


def with_code(text: str, code: Mapping[str, list[str]]) -> str:
    """The text of a dvc.yaml with the code of each stage at the end of its `deps`; everything else is kept."""
    lines: list[str] = []
    stage, inside = "", False
    for line in text.splitlines():
        if found := re.fullmatch(r"  (\w+):", line):
            stage = found[1]
        entry = line.startswith("      - ")
        if inside and not entry:
            lines += [f"      - {path}" for path in code[stage]]
            inside = False
        if line == "    deps:":
            inside = True
        if not (inside and entry and line.strip().startswith(f"- {CODE}")):
            lines.append(line)
    return "\n".join(lines) + "\n"


def _file(module: str, root: Path) -> str:
    path = Path(*module.split("."))
    return str(path / "__init__.py" if (root / path).is_dir() else path.with_suffix(".py"))


def main() -> None:
    """Writes the entries into the dvc.yaml of the working directory."""
    path = Path("dvc.yaml")
    before = path.read_text()
    after = with_code(before, code_of_stages())
    path.write_text(after)
    print("dvc.yaml: code dependencies " + ("are as they were" if after == before else "were written"), file=sys.stderr)


if __name__ == "__main__":
    main()
