"""Hashes of what a result was made from: data, parameters, code and models, as `dvc.lock` recorded them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from marl_pipeline.pipeline import dag

CODE = "marl_pipeline/"


def lineage(stage: str, root: Path = Path()) -> dict[str, str | None]:
    """What everything upstream of `stage`, and its own code, were at the time; None for what was not recorded.

    `data` is the ingested bars and companions, `models` the trained policies, `params` every parameter that a stage
    upstream declares, `code` every module that one of them or `stage` itself depends on. Stages left in the lock by
    another configuration do not count.
    """
    stages = {entry.name: entry for entry in dag.read(root)}
    locked = _lock(root)
    needed = _upstream(stages, stage)
    above = [locked[name] for name in needed] if all(name in locked for name in needed) else []
    outs = _hashes(above, "outs")
    code = {path: value for path, value in _hashes(above, "deps").items() if path.startswith(CODE)}
    own = {f"{stage}: {path}": _content(root / path) for path in stages[stage].deps if path.startswith(CODE)}
    params: dict[str, Any] = {}
    for entry in above:
        params |= entry.get("params", {}).get("params.yaml", {})
    return {
        "data": _digest({path: value for path, value in outs.items() if path.startswith(("data/hist", "data/comp"))}),
        "features": _digest({path: value for path, value in outs.items() if path == "data/training_data_rl"}),
        "models": _digest({path: value for path, value in outs.items() if path.startswith("models/")}),
        "params": _digest(params),
        "code": _digest(code | own if above else {}),
    }


def _upstream(stages: Mapping[str, dag.Stage], name: str) -> list[str]:
    """Every stage that `name` needs, directly or not, in the order of the DAG."""
    needed, waiting = set(), list(stages[name].upstream)
    while waiting:
        parent = waiting.pop()
        if parent not in needed:
            needed.add(parent)
            waiting += stages[parent].upstream
    return [entry for entry in stages if entry in needed]


def _lock(root: Path) -> dict[str, Any]:
    path = root / "dvc.lock"
    if not path.exists():
        return {}
    return dict(YAML(typ="safe", pure=True).load(path.read_text()).get("stages", {}))


def _content(path: Path) -> str:
    """One hash of a module, or of all modules of a package."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
        digest.update(str(file.relative_to(path)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _hashes(entries: Iterable[Mapping[str, Any]], kind: str) -> dict[str, str]:
    return {str(item["path"]): str(item.get("md5")) for entry in entries for item in entry.get(kind, [])}


def _digest(values: Mapping[str, Any]) -> str | None:
    """One hash of all of them; None for none."""
    if not values:
        return None
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]
