"""Strategies of params.yaml -> their specifications, checked: names, engines, settings, the source that they run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marl_pipeline.agents import registry
from marl_pipeline.agents.rules import rule
from marl_pipeline.config import AlgorithmStrategy, HierarchyStrategy, OverridesParams, RuleStrategy, Strategy
from marl_pipeline.errors import UserError
from marl_pipeline.pipeline.code_dependencies import files_of, import_graph
from marl_pipeline.scenarios.presets import choose
from marl_pipeline.strategies.kind import PHASES, TRADING
from marl_pipeline.strategies.specification import Specification

if TYPE_CHECKING:  # not imported here: the stage that resolves depends on whatever a strategy may run
    from grimp import ImportGraph

    from marl_pipeline.strategies import hierarchy, learned  # noqa: F401
    from marl_pipeline.strategies import rule as _rule_kind  # noqa: F401
    from marl_pipeline.training.engines import data_parallel, ray_train, rllib, sb3  # noqa: F401

ROOT = Path(__file__).parents[2]

HIERARCHY = "marl_pipeline.strategies.hierarchy"
LEARNED = "marl_pipeline.strategies.learned"
RULE = "marl_pipeline.strategies.rule"

READS: Mapping[str, tuple[str, ...]] = {
    "train_symbol_agents": ("market", "train_symbol_agents"),
    "train_master": ("market", "train_symbol_agents", "train_master"),
    "fine_tune": ("market", "train_symbol_agents", "train_master", "fine_tune"),
    "walk_forward": tuple(OverridesParams.model_fields),
}
"""Stage -> sections whose overrides matter in it: an override of a later phase does not run an earlier one again."""


def resolve(strategies: Mapping[str, Strategy]) -> dict[str, dict[str, Specification]]:
    """Strategy -> stage -> specification.

    Raises:
        UserError: an algorithm, a rule, an engine or a setting is unknown, or does not go with the others.
    """
    code = Code()
    found = {}
    for name, strategy in strategies.items():
        try:
            found[name] = _resolved(strategy, code)
        except UserError as error:
            raise UserError(f"strategies.{name}: {error}") from None
    return found


class Code:
    """Digests of the source that modules reach through their imports."""

    def __init__(self) -> None:
        self._graph: ImportGraph | None = None

    def digest(self, modules: Iterable[str]) -> str:
        """One digest of all files that one of `modules` reaches: paths and contents."""
        if self._graph is None:
            self._graph = import_graph()
        paths = sorted({path for module in modules for path in files_of(self._graph, module, ROOT)})
        digest = hashlib.sha256()
        for path in paths:
            digest.update(path.encode() + b"\0" + (ROOT / path).read_bytes() + b"\0")
        return digest.hexdigest()[:32]


def _resolved(strategy: Strategy, code: Code) -> dict[str, Specification]:
    match strategy:
        case HierarchyStrategy():
            return _hierarchy(strategy, code)
        case AlgorithmStrategy():
            return _learned(strategy, code)
        case RuleStrategy():
            return _rule(strategy, code)


def _hierarchy(strategy: HierarchyStrategy, code: Code) -> dict[str, Specification]:
    digest = code.digest([HIERARCHY])
    overrides = strategy.overrides.model_dump(mode="json")
    common = {"master": strategy.master, "inputs": strategy.inputs.model_dump()}

    def options(stage: str) -> dict[str, Any]:
        changed = {section: overrides[section] for section in READS[stage] if overrides[section]}
        if stage == PHASES[0] and "directives" in overrides["train_master"]:
            changed["train_master"] = {"directives": overrides["train_master"]["directives"]}
        return {**common, "overrides": changed}

    absent = {"train_master"} if strategy.master == "none" else set()
    return {
        stage: Specification("hierarchy", True, HIERARCHY, options(stage), digest)
        if stage not in absent
        else _nothing("hierarchy")
        for stage in (*PHASES, TRADING)
    }


def _learned(strategy: AlgorithmStrategy, code: Code) -> dict[str, Specification]:
    engine, environment = strategy.engine, strategy.environment
    chosen = choose(strategy.algo, environment, strategy.settings)
    begins = strategy.settings.get("learning_starts", chosen.as_dict().get("learning_starts", 0))
    if strategy.timesteps < begins:
        raise UserError(f"{strategy.timesteps} timesteps end before learning begins at {begins}: train longer")
    registered = registry.registered(strategy.algo)
    engines = {
        "torch": ["data_parallel"] if strategy.workers == 1 else ["data_parallel", "ray_train"],
        "ray": ["data_parallel", "ray_train"],
        "rllib": ["rllib"],
        "sb3": ["sb3"],
    }[engine]
    own = [registered.settings.__module__, registered.algorithm.__module__]
    digest = code.digest([LEARNED, *own, *(f"marl_pipeline.training.engines.{name}" for name in engines)])
    options = {
        "algo": strategy.algo,
        "engine": engine,
        "workers": strategy.workers,
        "timesteps": strategy.timesteps,
        "settings": chosen.as_dict(),
        "environment": environment,
        "inputs": strategy.inputs.model_dump(),
    }
    acts = Specification("algorithm", True, LEARNED, options, digest)
    return {stage: acts if stage in (PHASES[0], TRADING) else _nothing("algorithm") for stage in (*PHASES, TRADING)}


def _rule(strategy: RuleStrategy, code: Code) -> dict[str, Specification]:
    if rule(strategy.rule, strategy.options).uses == "benchmark":
        raise UserError(
            f"rule '{strategy.rule}' holds the benchmark, which is none of the symbols that strategies trade; it is a "
            "baseline of every report (choose another rule, such as buy_and_hold)"
        )
    options = {"rule": strategy.rule, "options": dict(strategy.options)}
    trades = Specification("rule", True, RULE, options, code.digest([RULE]))
    return {phase: _nothing("rule") for phase in PHASES} | {TRADING: trades}


def _nothing(name: str) -> Specification:
    return Specification(name, False, "", {}, "")
