"""Stage `train_symbol_agents`: curriculum PPO of one seed, one account per symbol, on the train span."""

from __future__ import annotations

from marl_pipeline.data.windows import split
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.pipeline.world import load_world
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.paths import DATASET, SYMBOL_AGENTS, seed_folder
from marl_pipeline.store.policies import save_policy
from marl_pipeline.training.hierarchy import train_symbol_agents


def run(context: StageContext) -> None:
    params, seed = context.params, context.item["seed"]
    context.set_tags({"agent_type": "symbol", "reward_version": params.market.reward})
    dataset = load_dataset(context.root / DATASET)
    spans = split(dataset.bars, params.spans)
    world = load_world(context, dataset)
    weights, metadata = train_symbol_agents(
        world,
        train_span=spans.train,
        validation_span=spans.validation,
        seed=seed,
        on_step=context.on_step,
        checkpoint=context.checkpoint,
    )
    context.log_metrics(
        {f"{stage['name']}/best_validation_net": stage["best_validation_net"] for stage in metadata["stages"]}
    )
    context.set_tags({"curriculum_stage": metadata["stages"][-1]["name"]})
    with context.output(seed_folder(SYMBOL_AGENTS, seed)) as folder:
        save_policy(folder, {"symbols": weights}, {"seed": seed, **metadata})


if __name__ == "__main__":
    main(run)
