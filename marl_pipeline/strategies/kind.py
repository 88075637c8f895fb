"""A kind of strategy, as the stages use it: it learns in phases and trades held-out windows.

A kind is a module of this package with the functions of `Kind`. Stages import it by the name that the stage
`strategies` has written into a strategy's specification, together with a digest of the source that it reaches: so an
edit of one algorithm runs the strategies again that use it, and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from marl_pipeline.checkpoint import Checkpointer
from marl_pipeline.config import Params
from marl_pipeline.data.dataset import Dataset
from marl_pipeline.data.windows import Window
from marl_pipeline.evaluation.records import Record
from marl_pipeline.progress import OnStep

PHASES = ("train_symbol_agents", "train_master", "fine_tune")
"""The stages of training, in order; each takes the policy of the one before and hands on a better one."""

TRADING = "walk_forward"
"""The stage that plays a window."""

Networks = Mapping[str, Mapping[str, Tensor]]
"""Name of a network -> its weights: one safetensors file each."""


@dataclass(frozen=True)
class Work:
    """What a stage gives to a strategy.

    Attributes:
        options: of the strategy, as its specification holds them.
        params: those that the stage declares in dvc.yaml.
        dataset: the whole of it; a strategy learns on the train span and selects on the validation span.
        root: of the repository, where signals and embeddings lie.
    """

    options: Mapping[str, Any]
    params: Params
    dataset: Dataset
    seed: int
    root: Path
    on_step: OnStep
    checkpoint: Checkpointer

    @property
    def device(self) -> torch.device:
        return torch.device(self.params.run.device)


@dataclass(frozen=True)
class Learned:
    """What a phase leaves.

    Attributes:
        metadata: JSON-ready, the same bytes for the same inputs; `curves` of it are drawn in the report.
        metrics, tags: for MLflow.
    """

    networks: Networks
    metadata: Mapping[str, Any]
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class Kind(Protocol):
    """The functions of a module that is a kind of strategy."""

    def learn(self, phase: str, work: Work, before: Path | None) -> Learned:
        """Trains for one of the phases that the strategy has.

        Args:
            before: the folder of the policy that the phase before has left; None in the first phase.
        """
        ...

    def trade(self, work: Work, policy: Path, window: Window) -> Record:
        """Plays the test part of a window; may tune on the bars before it.

        Args:
            policy: the folder of the trained policy; of a rule it holds nothing of interest.
        """
        ...


def kind(module: str) -> Kind:
    """The kind of strategy that a module of this package is."""
    return cast(Kind, import_module(module))
