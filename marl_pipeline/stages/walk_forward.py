"""Stage `walk_forward`: one window of one seed. Tunes on the bars before the window, then trades it untouched."""

from __future__ import annotations

from marl_pipeline.data.windows import version_in_force, walk_forward_windows
from marl_pipeline.evaluation.walk_forward import trade
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.pipeline.records import record_folder, save_record
from marl_pipeline.scenarios.trading_market import load_trading_market
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.models import load_refits
from marl_pipeline.store.paths import DATASET, ENCODER, HIERARCHY, seed_folder
from marl_pipeline.store.policies import load_weights
from marl_pipeline.training.hierarchy import Tiers, fine_tune, hierarchy_policy


def run(context: StageContext) -> None:
    params, seed, index = context.params, context.item["seed"], context.item["window"]
    context.set_tags({"agent_type": "hierarchy", "reward_version": params.market.reward})
    dataset = load_dataset(context.root / DATASET)
    window = walk_forward_windows(dataset.bars, params.spans, params.walk_forward)[index]
    version = version_in_force(load_refits(context.root / ENCODER), window.test.start).version
    market = load_trading_market(params, context.root, dataset, version)
    tiers = Tiers(params.train_symbol_agents, params.train_master)
    base = context.root / seed_folder(HIERARCHY, seed)
    weights, tuning = fine_tune(
        market,
        tiers,
        load_weights(base, "symbols") | load_weights(base, "master"),
        params=params.fine_tune,
        iterations=params.walk_forward.tune_iterations,
        span=window.tune,
        validation_span=None,
        seed=seed,
        label=f"window {index}: tune",
        on_step=context.on_step,
        checkpoint=context.checkpoint,
    )
    environment = market.environment("portfolio", window.test, num_envs=1, episode=None, seed=0)
    policy = hierarchy_policy(market, tiers, weights, "portfolio", window.test)
    record = trade(environment, policy, dataset.panel, window=index, seed=seed, tuning=tuning["curves"])
    with context.output(record_folder(index, seed)) as folder:
        save_record(folder, record)
    growth = record.equity["equity"].iloc[-1] / record.initial_cash - 1
    context.log_metrics({"net_return": float(growth), "fills": float(len(record.trades))})


if __name__ == "__main__":
    main(run)
