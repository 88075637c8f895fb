"""Stage `train_symbol_agents`: the first phase of training of one strategy and seed, on the train span.

Of the hierarchy: curriculum PPO, one account per symbol. Of an algorithm: the whole of its training.
"""

from __future__ import annotations

from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.store.paths import SYMBOL_AGENTS
from marl_pipeline.strategies.phase import run_phase


def run(context: StageContext) -> None:
    run_phase(context, "train_symbol_agents", None, SYMBOL_AGENTS)


if __name__ == "__main__":
    main(run)
