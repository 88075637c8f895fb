"""Stage `fine_tune`: the last phase of training of one strategy and seed, on the train span.

Of the hierarchy: both tiers together, the symbol heads at a low learning rate. Other strategies hand their policy on.
"""

from __future__ import annotations

from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.store.paths import MASTER, POLICIES
from marl_pipeline.strategies.phase import run_phase


def run(context: StageContext) -> None:
    run_phase(context, "fine_tune", MASTER, POLICIES)


if __name__ == "__main__":
    main(run)
