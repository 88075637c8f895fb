"""Stage `train_symbol_agents`: curriculum PPO of one seed, one account per symbol, on the train span."""

from __future__ import annotations

from marl_pipeline.data.windows import split
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.scenarios.trading_market import load_trading_market
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.paths import DATASET, SYMBOL_AGENTS, seed_folder
from marl_pipeline.store.policies import save_policy
from marl_pipeline.training.hierarchy import Tiers, train_symbol_agents


def run(context: StageContext) -> None:
    params, seed = context.params, context.item["seed"]
    dataset = load_dataset(context.root / DATASET)
    spans = split(dataset.bars, params.spans)
    weights, metadata = train_symbol_agents(
        load_trading_market(params, context.root, dataset),
        Tiers(params.train_symbol_agents, params.train_master),
        train_span=spans.train,
        validation_span=spans.validation,
        seed=seed,
        on_step=context.on_step,
        checkpoint=context.checkpoint,
    )
    context.log_metrics({"best_validation_net": metadata["best_validation_net"]})
    context.set_tags(
        {
            "agent_type": "symbol",
            "reward_version": params.market.reward,
            "curriculum_stage": metadata["stages"][-1],
        }
    )
    with context.output(seed_folder(SYMBOL_AGENTS, seed)) as folder:
        save_policy(folder, {"symbols": weights}, {"seed": seed, **metadata})


if __name__ == "__main__":
    main(run)
