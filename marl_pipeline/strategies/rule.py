"""A rule as a strategy: nothing to train; it trades under the limits that bind everyone."""

from __future__ import annotations

from pathlib import Path

from marl_pipeline.agents.rules import rule
from marl_pipeline.data.windows import Window
from marl_pipeline.evaluation.records import Record
from marl_pipeline.evaluation.rules import trade_rule
from marl_pipeline.store.models import load_signals
from marl_pipeline.store.paths import SIGNALS
from marl_pipeline.strategies.kind import Learned, Work


def learn(phase: str, work: Work, before: Path | None) -> Learned:
    """A rule has no phase of training."""
    raise RuntimeError(f"a rule learns nothing (asked to in {phase})")


def trade(work: Work, policy: Path, window: Window) -> Record:
    """See `strategies.kind.Kind`."""
    return trade_rule(
        rule(work.options["rule"], work.options["options"]),
        work.dataset,
        load_signals(work.root / SIGNALS),
        work.params.market,
        window.test,
        window=window.index,
        seed=work.seed,
        limits="market",
    )
