"""The hierarchy as a strategy: symbol agents on accounts of their own, a master over them, both together; tuned on the
bars before every window. With `master: none` the symbol agents share one portfolio under the full limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from marl_pipeline.agents.hierarchy import Alone, Hierarchy
from marl_pipeline.algos.common.rollout import Controller
from marl_pipeline.config import S, TrainMasterParams, overridden
from marl_pipeline.data.windows import Window, split, version_in_force
from marl_pipeline.envs.protocol import Timestep
from marl_pipeline.evaluation.records import Record
from marl_pipeline.evaluation.walk_forward import record_window
from marl_pipeline.store.models import load_embeddings, load_refits, load_signals
from marl_pipeline.store.paths import ENCODER, SIGNALS
from marl_pipeline.store.policies import load_weights
from marl_pipeline.strategies.kind import Learned, Networks, Work
from marl_pipeline.training.hierarchy import Weights, World, fine_tune, train_master, train_symbol_agents


def learn(phase: str, work: Work, before: Path | None) -> Learned:
    """See `strategies.kind.Kind`."""
    if before is None:
        return _symbol_agents(work)
    return _master(work, before) if phase == "train_master" else _together(work, before)


def trade(work: Work, policy: Path, window: Window) -> Record:
    """See `strategies.kind.Kind`."""
    params = work.params
    version = version_in_force(load_refits(work.root / ENCODER), window.test.start).version
    world = _world(work, version)
    symbols, master, tuning = fine_tune(
        world,
        load_weights(policy, "symbols"),
        _master_weights(work, policy),
        params=_changed(work, "fine_tune", params.fine_tune),
        iterations=_changed(work, "walk_forward", params.walk_forward).tune_iterations,
        span=window.tune,
        validation_span=None,
        seed=work.seed,
        label=f"window {window.index}: tune",
        on_step=work.on_step,
        checkpoint=work.checkpoint,
    )
    return trade_window(world, symbols, master, window=window, seed=work.seed, tuning=tuning["curves"])


def trade_window(
    world: World,
    symbol_weights: Mapping[str, Tensor],
    master_weights: Mapping[str, Tensor] | None,
    *,
    window: Window,
    seed: int,
    tuning: Sequence[Mapping[str, Any]] = (),
) -> Record:
    """The hierarchy trades the test part of `window`; every tier takes its most probable action.

    Without `master_weights` the symbol agents trade under the full limits.
    """
    agents = world.symbol_agents(seed)
    agents.module.load_state_dict(dict(symbol_weights))
    controller: Controller = Alone(agents)
    if master_weights is not None:
        master = world.master_agent(seed)
        master.module.load_state_dict(dict(master_weights))
        controller = Hierarchy(agents, master, explore_symbols=False)

    def act(timestep: Timestep) -> dict[str, Tensor]:
        return {name: decision.action for name, decision in controller.decide(timestep, None).items()}

    environment = world.environment("portfolio", window.test, num_envs=1, episode=None, seed=0)
    return record_window(environment, act, world.dataset.panel, window=window.index, seed=seed, tuning=tuning)


def _symbol_agents(work: Work) -> Learned:
    world, spans = _world(work), split(work.dataset.bars, work.params.spans)
    weights, metadata = train_symbol_agents(
        world,
        train_span=spans.train,
        validation_span=spans.validation,
        seed=work.seed,
        on_step=work.on_step,
        checkpoint=work.checkpoint,
    )
    stages = metadata["stages"]
    return Learned(
        {"symbols": weights},
        metadata,
        {f"{stage['name']}/best_validation_net": stage["best_validation_net"] for stage in stages},
        {"agent_type": "symbol", "curriculum_stage": stages[-1]["name"]},
    )


def _master(work: Work, before: Path) -> Learned:
    world, spans = _world(work), split(work.dataset.bars, work.params.spans)
    symbols = load_weights(before, "symbols")
    master, metadata = train_master(
        world,
        symbols,
        train_span=spans.train,
        validation_span=spans.validation,
        seed=work.seed,
        on_step=work.on_step,
        checkpoint=work.checkpoint,
    )
    best = {"best_validation_net": metadata["best_validation_net"]}
    return Learned({"symbols": symbols, "master": master}, metadata, best, {"agent_type": "master"})


def _together(work: Work, before: Path) -> Learned:
    world, spans = _world(work), split(work.dataset.bars, work.params.spans)
    params = _changed(work, "fine_tune", work.params.fine_tune)
    symbols, master, metadata = fine_tune(
        world,
        load_weights(before, "symbols"),
        _master_weights(work, before),
        params=params,
        iterations=params.iterations,
        span=spans.train,
        validation_span=spans.validation,
        seed=work.seed,
        label="fine-tune",
        on_step=work.on_step,
        checkpoint=work.checkpoint,
    )
    networks: Networks = {"symbols": symbols} if master is None else {"symbols": symbols, "master": master}
    best = {"best_validation_net": metadata["best_validation_net"]}
    metadata = {"universe": list(work.dataset.panel.symbols), **metadata}
    return Learned(networks, metadata, best, {"agent_type": "hierarchy"})


def _world(work: Work, version: int = 0) -> World:
    """The market as encoder `version` describes it; version 0 is the base fit."""
    params, inputs = work.params, work.options["inputs"]
    overrides = work.options["overrides"]
    master = params.train_master
    if isinstance(master, TrainMasterParams):
        master = _changed(work, "train_master", master)
    elif "train_master" in overrides:  # the first phase declares the directives alone
        directives = overridden(master.directives, overrides["train_master"]["directives"])
        master = TrainMasterParams.model_construct(directives=directives)
    return World.build(
        work.dataset,
        load_signals(work.root / SIGNALS) if inputs["signals"] else None,
        load_embeddings(work.root / ENCODER, version) if inputs["embeddings"] else None,
        _changed(work, "market", params.market),
        _changed(work, "train_symbol_agents", params.train_symbol_agents),
        master,
        work.device,
        has_master=work.options["master"] != "none",
    )


def _changed(work: Work, name: str, section: S) -> S:
    return overridden(section, work.options["overrides"].get(name, {}))


def _master_weights(work: Work, folder: Path) -> Weights | None:
    return None if work.options["master"] == "none" else load_weights(folder, "master")
