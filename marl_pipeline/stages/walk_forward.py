"""Stage `walk_forward`: one window of one strategy and seed.

A strategy may tune on the bars before the window; it trades the window untouched.
"""

from __future__ import annotations

from marl_pipeline.config import overridden
from marl_pipeline.data.windows import walk_forward_windows
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.pipeline.records import record_folder, save_record
from marl_pipeline.store.paths import POLICIES, policy_folder
from marl_pipeline.strategies.kind import TRADING, kind
from marl_pipeline.strategies.phase import work_of
from marl_pipeline.strategies.specification import load_specification


def run(context: StageContext) -> None:
    params, item = context.params, context.item
    name, seed, index = item["strategy"], item["seed"], item["window"]
    specification = load_specification(context.root, name, TRADING)
    context.set_tags({"agent_type": specification.kind, "reward_version": params.market.reward})
    work = work_of(context, specification)
    changes = specification.options.get("overrides", {}).get("walk_forward", {})
    walk_forward = overridden(params.walk_forward, changes)
    window = walk_forward_windows(work.dataset.bars, params.spans, walk_forward)[index]
    record = kind(specification.module).trade(work, context.root / policy_folder(POLICIES, name, seed), window)
    with context.output(record_folder(name, index, seed)) as folder:
        save_record(folder, record)
    growth = record.equity["equity"].iloc[-1] / record.initial_cash - 1
    context.log_metrics({"net_return": float(growth), "fills": float(len(record.trades))})


if __name__ == "__main__":
    main(run)
