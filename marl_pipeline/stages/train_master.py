"""Stage `train_master`: MAPPO of one seed over frozen symbol agents, one shared portfolio, on the train span."""

from __future__ import annotations

from marl_pipeline.data.windows import split
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.scenarios.trading_market import load_trading_market
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.paths import DATASET, MASTER, SYMBOL_AGENTS, seed_folder
from marl_pipeline.store.policies import load_weights, save_policy
from marl_pipeline.training.hierarchy import Tiers, train_master


def run(context: StageContext) -> None:
    params, seed = context.params, context.item["seed"]
    context.set_tags({"agent_type": "master", "reward_version": params.market.reward})
    dataset = load_dataset(context.root / DATASET)
    spans = split(dataset.bars, params.spans)
    weights, metadata = train_master(
        load_trading_market(params, context.root, dataset),
        Tiers(params.train_symbol_agents, params.train_master),
        load_weights(context.root / seed_folder(SYMBOL_AGENTS, seed), "symbols"),
        train_span=spans.train,
        validation_span=spans.validation,
        seed=seed,
        on_step=context.on_step,
        checkpoint=context.checkpoint,
    )
    context.log_metrics({"best_validation_net": metadata["best_validation_net"]})
    with context.output(seed_folder(MASTER, seed)) as folder:
        save_policy(folder, {"master": weights}, {"seed": seed, **metadata})


if __name__ == "__main__":
    main(run)
