"""Stage `train_master`: the second phase of training of one strategy and seed, on the train span.

Of the hierarchy: MAPPO over frozen symbol agents, one shared portfolio. Other strategies hand their policy on.
"""

from __future__ import annotations

from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.store.paths import MASTER, SYMBOL_AGENTS
from marl_pipeline.strategies.phase import run_phase


def run(context: StageContext) -> None:
    run_phase(context, "train_master", SYMBOL_AGENTS, MASTER)


if __name__ == "__main__":
    main(run)
