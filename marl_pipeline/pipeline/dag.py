"""The stages of `dvc.yaml` as values; the only place that asks DVC what they are.

Names, order, commands, dependencies, declared parameters and outputs all come from DVC's own loader, so templates
and matrices mean here exactly what they mean to `dvc repro`. DVC is imported on use: it takes half a second.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marl_pipeline.config import Params, load_params
from marl_pipeline.errors import UserError


@dataclass(frozen=True)
class Stage:
    """One runnable entry of `dvc.yaml`.

    Attributes:
        name: as DVC addresses it: `walk_forward@0-1` for window 0 and seed 1 of a matrix.
        cmd: the command line.
        deps: files and folders it reads, relative to the root; parameters apart.
        params: the keys of `params.yaml` it declares.
        outs: what it writes.
        upstream: names of the stages whose outputs it reads, in the order of `dvc.yaml`.
    """

    name: str
    cmd: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]
    upstream: tuple[str, ...]

    @property
    def group(self) -> str:
        """The name without its matrix item: `walk_forward`."""
        return self.name.partition("@")[0]

    @property
    def module(self) -> str:
        """The module its command runs; "" if the command is not `python -m` and a module."""
        words = shlex.split(self.cmd)
        return words[2] if words[:2] == ["python", "-m"] else ""


def read(root: Path = Path()) -> tuple[Stage, ...]:
    """All stages, upstream before downstream, otherwise in the order of `dvc.yaml`.

    Raises:
        UserError: `dvc.yaml` or `params.yaml` is missing, malformed or cyclic.
    """
    with _repo(root) as repo:
        return _read(repo)


def find(stages: Sequence[Stage], argv: Sequence[str]) -> Stage:
    """The stage whose command is `python -m` followed by `argv` (a module and its arguments).

    Raises:
        UserError: no stage has that command.
    """
    for stage in stages:
        words = shlex.split(stage.cmd)
        if words[:2] == ["python", "-m"] and words[2:] == list(argv):
            return stage
    known = [stage.cmd for stage in stages if shlex.split(stage.cmd)[2:3] == list(argv[:1])]
    hint = f"; those of this module: {', '.join(known)}" if known else ""
    raise UserError(f"dvc.yaml: no stage has the command 'python -m {shlex.join(argv)}'{hint}")


@dataclass(frozen=True)
class Inputs:
    """What a stage reads, by content.

    Attributes:
        deps: path -> hash, parameters apart.
        key: one hash of command, dependencies and declared parameters: equal keys, equal results.
    """

    deps: Mapping[str, str]
    key: str

    @property
    def data(self) -> str:
        """One hash of the dependencies that are not code."""
        data = {path: value for path, value in self.deps.items() if not path.startswith("marl_pipeline/")}
        return _digest(data)[:16]


@dataclass(frozen=True)
class Task:
    """One stage as its process sees it: what it is, among which others, with which parameters and inputs."""

    stage: Stage
    stages: tuple[Stage, ...]
    params: Params
    inputs: Inputs


def resolve(argv: Sequence[str], root: Path = Path()) -> Task:
    """The stage that `argv` is the command of, and what it reads now.

    DVC remembers the hashes of files that did not change.

    Raises:
        UserError: no stage has that command, or something it reads is missing or malformed.
    """
    with _repo(root) as repo:
        params = load_params(root / "params.yaml")
        stages = _read(repo)
        stage = find(stages, argv)
        node = next(node for node in repo.index.stages if node.name == stage.name)
        return Task(stage, stages, params, _inputs(node, repo.root_dir))


@dataclass(frozen=True)
class Survey:
    """What a run reads at its start.

    Attributes:
        stages: as `read` gives them.
        changes: as `changes` gives them.
        params: all parameters.
        sources: a hash of `dvc.yaml` and `params.yaml`.
    """

    stages: tuple[Stage, ...]
    changes: Mapping[str, Sequence[str]]
    params: Params
    sources: str

    def task(self, node: Any) -> Task | None:
        """The stage that DVC is about to run, as its process sees it; None if `dvc.yaml` or `params.yaml` changed.

        Args:
            node: DVC's own stage, whose dependencies it has just hashed.
        """
        root = node.repo.root_dir
        stage = next((stage for stage in self.stages if stage.name == node.name), None)
        if stage is None or self.sources != _sources(Path(root)):
            return None
        return Task(stage, self.stages, self.params, _inputs(node, root))


def survey(root: Path = Path()) -> Survey:
    """Stages, changes and parameters of one moment.

    Raises:
        UserError: `dvc.yaml` or `params.yaml` is missing, malformed or cyclic.
    """
    with _repo(root) as repo:
        sources = _sources(root)
        return Survey(_read(repo), _changes(repo), load_params(root / "params.yaml"), sources)


def _sources(root: Path) -> str:
    return _digest([(root / name).read_text() for name in ("dvc.yaml", "params.yaml") if (root / name).exists()])


def _inputs(node: Any, root: str) -> Inputs:
    """What DVC's stage reads now.

    Raises:
        UserError: something is missing.
    """
    deps: dict[str, str] = {}
    values: dict[str, Any] = {}
    for dep in node.deps:
        if not dep.exists:
            raise UserError(f"{_relative(dep, root)}: no such file or folder; run what makes it first")
        value = dep.get_hash().value
        if isinstance(value, dict):
            values.update(value)
        else:
            deps[_relative(dep, root)] = str(value)
    return Inputs(deps, _digest({"cmd": str(node.cmd), "deps": deps, "params": values}))


def changes(root: Path = Path()) -> dict[str, list[str]]:
    """Why each stage that is out of date would run, in words; stages that would not run are absent.

    Only a stage's own state is judged: one whose inputs will be rewritten by a stage upstream may run as well.
    """
    with _repo(root) as repo:
        return _changes(repo)


def preview(root: Path, place: AbstractContextManager[None]) -> tuple[tuple[Stage, ...], dict[str, list[str]]]:
    """`read` and `changes` as they are while `place` has other files in place.

    The whole of it happens under DVC's lock, and so does a stage's reading of its parameters: no stage that runs
    meanwhile sees those files.
    """
    with _repo(root) as repo, place:
        return _read(repo), _changes(repo)


def _changes(repo: Any) -> dict[str, list[str]]:
    reasons = {}
    for stage in repo.index.stages:
        words = _own_changes(stage, repo.root_dir) if stage.cmd else []
        if words:
            reasons[str(stage.name)] = words
    return reasons


def _read(repo: Any) -> tuple[Stage, ...]:
    graph = repo.index.graph
    nodes = [stage for stage in repo.index.stages if stage.cmd]
    position = {stage: place for place, stage in enumerate(nodes)}
    upstream = {stage: sorted(graph.successors(stage), key=position.__getitem__) for stage in nodes}
    return tuple(_stage(stage, upstream[stage], repo.root_dir) for stage in _topological(nodes, upstream))


def _own_changes(stage: Any, root: str) -> list[str]:
    from dvc.dependency import ParamsDependency

    if all(not dep.hash_info.value for dep in stage.deps):
        return ["never run"]
    words = []
    if stage.changed_stage():
        words.append("command changed")
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            words += _param_changes(dep)
        elif not dep.exists:
            words.append(f"{_relative(dep, root)} is not there yet")
        elif not dep.hash_info.value:
            words.append(f"{_relative(dep, root)} is new")
        elif dep.changed_checksum():
            words.append(f"{_relative(dep, root)} changed")
    for out in stage.outs:
        if not out.exists:
            words.append(f"{_relative(out, root)} is missing")
        elif out.changed_checksum():
            words.append(f"{_relative(out, root)} was altered")
    return words


def _param_changes(dep: Any) -> list[str]:
    before = _flat(dep.hash_info.value or {})
    after = _flat(dep.read_params(flatten=False))
    words = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key, "(absent)"), after.get(key, "(absent)")
        if old != new:
            words.append(f"{key}: {old} -> {new}")
    return words


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _stage(stage: Any, upstream: Sequence[Any], root: str) -> Stage:
    from dvc.dependency import ParamsDependency

    files = [dep for dep in stage.deps if not isinstance(dep, ParamsDependency)]
    params = [key for dep in stage.deps if isinstance(dep, ParamsDependency) for key in dep.params]
    return Stage(
        name=stage.name,
        cmd=str(stage.cmd),
        deps=tuple(_relative(dep, root) for dep in files),
        params=tuple(params),
        outs=tuple(_relative(out, root) for out in stage.outs),
        upstream=tuple(parent.name for parent in upstream),
    )


def _topological(nodes: Sequence[Any], upstream: Mapping[Any, Sequence[Any]]) -> Iterator[Any]:
    done: set[Any] = set()

    def visit(node: Any) -> Iterator[Any]:
        if node not in done:
            done.add(node)
            for parent in upstream[node]:
                yield from visit(parent)
            yield node

    for node in nodes:
        yield from visit(node)


def _relative(item: Any, root: str) -> str:
    """A path as written in dvc.yaml where it lies under the root, absolute elsewhere."""
    path = os.path.relpath(item.fs_path, root)
    return str(item.fs_path) if path.startswith("..") else path


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def _repo(root: Path) -> Iterator[Any]:
    """DVC's view of the checkout, under its lock: another stage may be rewriting dvc.lock just now."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root), _wait_for_lock=True) as repo, repo.lock:
            yield repo
    except DvcException as error:
        raise UserError(f"dvc.yaml: {' '.join(str(error).split())}") from error
