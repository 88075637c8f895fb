"""Stage `fine_tune`: both tiers of one seed together, symbol heads at a low learning rate, on the train span."""

from __future__ import annotations

from marl_pipeline.data.windows import split
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.pipeline.world import load_world
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.paths import DATASET, HIERARCHY, MASTER, SYMBOL_AGENTS, seed_folder
from marl_pipeline.store.policies import load_weights, save_policy
from marl_pipeline.training.hierarchy import fine_tune


def run(context: StageContext) -> None:
    params, seed = context.params, context.item["seed"]
    context.set_tags({"agent_type": "hierarchy", "reward_version": params.market.reward})
    dataset = load_dataset(context.root / DATASET)
    spans = split(dataset.bars, params.spans)
    world = load_world(context, dataset)
    symbols, master, metadata = fine_tune(
        world,
        load_weights(context.root / seed_folder(SYMBOL_AGENTS, seed), "symbols"),
        load_weights(context.root / seed_folder(MASTER, seed), "master"),
        params=params.fine_tune,
        iterations=params.fine_tune.iterations,
        span=spans.train,
        validation_span=spans.validation,
        seed=seed,
        label="fine-tune",
        on_step=context.on_step,
        checkpoint=context.checkpoint,
    )
    context.log_metrics({"best_validation_net": metadata["best_validation_net"]})
    with context.output(seed_folder(HIERARCHY, seed)) as folder:
        metadata = {"seed": seed, "universe": list(world.dataset.panel.symbols), **metadata}
        save_policy(folder, {"symbols": symbols, "master": master}, metadata)


if __name__ == "__main__":
    main(run)
