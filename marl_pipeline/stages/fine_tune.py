"""Stage `fine_tune`: both tiers of one seed together, each at a low learning rate, on the train span."""

from __future__ import annotations

from marl_pipeline.data.windows import split
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.scenarios.trading_market import load_trading_market
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.paths import DATASET, HIERARCHY, MASTER, SYMBOL_AGENTS, seed_folder
from marl_pipeline.store.policies import by_tier, load_weights, save_policy
from marl_pipeline.training.hierarchy import Tiers, fine_tune


def run(context: StageContext) -> None:
    params, seed, root = context.params, context.item["seed"], context.root
    context.set_tags({"agent_type": "hierarchy", "reward_version": params.market.reward})
    dataset = load_dataset(root / DATASET)
    spans = split(dataset.bars, params.spans)
    start = load_weights(root / seed_folder(SYMBOL_AGENTS, seed), "symbols")
    weights, metadata = fine_tune(
        load_trading_market(params, root, dataset),
        Tiers(params.train_symbol_agents, params.train_master),
        start | load_weights(root / seed_folder(MASTER, seed), "master"),
        params=params.fine_tune,
        iterations=params.fine_tune.iterations,
        span=spans.train,
        validation_span=spans.validation,
        seed=seed,
        label="fine-tune",
        on_step=context.on_step,
        checkpoint=context.checkpoint,
    )
    if metadata["best_validation_net"] is not None:
        context.log_metrics({"best_validation_net": metadata["best_validation_net"]})
    with context.output(seed_folder(HIERARCHY, seed)) as folder:
        metadata = {"seed": seed, "universe": list(dataset.panel.symbols), **metadata}
        save_policy(folder, by_tier(weights), metadata)


if __name__ == "__main__":
    main(run)
